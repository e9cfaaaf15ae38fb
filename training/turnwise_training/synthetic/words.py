"""Word lists the written demonstrations draw from."""

import random

FIRST_NAMES = """
Aaron Abena Abigail Adaeze Adam Adela Adrian Agnes Ahmed Aiko Aino Alan Alba Alejandro Alessia Alice Alina Alma Amara
Amelia Amina Amir Amy Ana Anders Andrea Andrew Anita Anna Anouk Antonio Anya Arjun Arthur Asha Astrid Aurora Axel Ayaan
Ayesha Barbara Basil Beatrice Ben Benedikt Berta Bianca Bilal Birgit Bjorn Bonnie Boris Brian Bridget Bruno Caleb Camila
Carla Carlos Carmen Caroline Catherine Cecilia Chad Chandra Charles Charlotte Chen Chiara Chidi Chloe Chris Clara Claire
Clement Colin Connor Cora Cyrus Daisy Damian Dana Daniel Daria David Deepak Delia Denis Derek Diana Diego Dilip Dina
Dmitri Dominic Donna Dora Dylan Edgar Edith Edward Eileen Elena Eli Elias Elif Elise Eliza Ella Ellen Elsa Emeka Emil
Emily Emma Enzo Eric Erin Esther Ethan Eva Evan Fabio Farah Fatima Felix Femi Fergus Fiona Flora Florian Frances Frank
Freya Frida Gabriel Gareth Gemma George Gerda Gianni Gita Giulia Grace Greta Gunnar Gus Gwen Hamza Hana Hannah Harold
Harriet Harry Hassan Hector Heidi Helen Helga Henry Hiro Hugo Ian Ibrahim Ida Idris Ilse Imani Ines Ingrid Iris Isaac
Isabel Isla Ivan Ivy Jack Jacob Jade Jamal James Jana Jane Jasmine Jason Javier Jean Jenny Jerome Jin Joan Joel Johan
John Jonas Jorge Joseph Joy Juan Judith Julia Julian Juma June Kai Kamal Karen Karim Karl Kate Katya Keiko Kenji Kevin
Kiran Klaus Kofi Kwame Lara Lars Laura Layla Leah Lee Leila Lena Leo Leon Liam Lila Lily Linda Linus Lisa Logan Lola
Louis Lucas Lucia Lucy Luis Luna Maddie Magnus Maja Malik Marco Margaret Maria Marie Marina Mario Mark Marta Martin Mary
Mateo Matilda Max Maya Megan Mehmet Mei Mia Michael Miguel Mila Milan Mina Miriam Mohammed Molly Mona Monika Morgan Moses
Nadia Nadine Naomi Natalie Nathan Neha Nia Niamh Nicholas Niko Nils Nina Noah Noor Nora Odette Ola Olaf Oleg Olga Oliver
Olivia Omar Oona Oscar Otto Owen Pablo Pamela Patrick Paul Paula Pearl Pedro Penny Peter Petra Philip Pia Pierre Pippa
Priya Quentin Quinn Rachel Rafael Rahul Raj Ralph Ramona Rania Raul Ravi Rebecca Reza Rhea Richard Rita Robert Robin
Rohan Rolf Roman Rosa Rose Ruby Rupert Ruth Ryan Sabine Sadie Sally Salma Sam Samira Samuel Sandra Sanjay Sara Sarah
Sasha Saul Scott Sean Selma Serena Shira Silas Silvia Simon Sofia Sonja Stefan Stella Steve Sunil Susan Sven Tamar Tanya
Tara Tariq Tessa Theo Thomas Tilda Tim Tobias Tom Tomas Tony Tove Uma Ursula Valentina Vera Victor Viola Vikram Walter
Wanda Wei Wendy Wilhelm Will Xavier Ximena Yan Yara Yasmin Yusuf Yuki Yvonne Zachary Zahra Zara Zelda Zoe Zola
""".split()
ONSETS = "b br c ch d dr f fl g gl gr h j k kl l m n p pr qu r s sh sk st t th tr v w y z".split()
VOWELS = "a e i o u a e i o ai ea ia io ou".split()
CODAS = [
    "",
    "",
    "",
    "",
    "l",
    "n",
    "r",
    "s",
    "m",
    "x",
    "k",
    "th",
    "nd",
    "ra",
    "lla",
    "ric",
    "vin",
    "ska",
    "mo",
    "wyn",
]
COLOURS = (
    "red blue green yellow orange purple pink black white brown grey turquoise gold silver violet".split()
)
FOODS = """pizza|pasta|sushi|rice|curry|soup|bread|cheese|apples|mangoes|pancakes|tacos|noodles|salad|chocolate|ice cream|
strawberries|dumplings|lasagna|falafel|fish and chips|tomato soup|potatoes|bananas|burgers|couscous|roast chicken|
lentil stew|paella|waffles""".replace("\n", "").split("|")
CITIES = """Paris London Berlin Madrid Rome Lisbon Vienna Oslo Stockholm Helsinki Dublin Athens Warsaw Prague Budapest
Cairo Nairobi Lagos Accra Mumbai Delhi Tokyo Osaka Seoul Beijing Shanghai Sydney Melbourne Auckland Toronto Montreal
Boston Chicago Denver Seattle Lima Bogota Santiago Istanbul Ankara Dakar Hanoi Manila Jakarta Leeds Porto Lyon Turin
Hamburg Munich Zurich Geneva Tampa Austin Dallas Bristol Glasgow Cardiff Malmo Bergen""".split()
PETS = "dog cat rabbit hamster parrot goldfish horse turtle pony lizard guinea pig canary".replace(
    "guinea pig", "guinea_pig"
)
PET_KINDS = [pet.replace("_", " ") for pet in PETS.split()]
PET_NAMES = """Rex Bella Milo Coco Buddy Nala Simba Rocky Daisy Luna Biscuit Pepper Ginger Oreo Pickle Shadow Snowy Ziggy
Waffles Mochi Pumpkin Teddy Toffee Bubbles Socks Whiskers Nugget Pebble Comet Maple""".split()
JOBS = """teacher nurse farmer cook driver painter doctor student gardener musician baker writer carpenter pilot engineer
plumber librarian dentist waiter mechanic photographer designer firefighter lawyer scientist""".split()
HOBBIES = """reading|swimming|painting|cooking|hiking|dancing|fishing|chess|knitting|football|tennis|gardening|singing|
cycling|photography|running|playing the piano|playing the guitar|baking|sailing|skiing|climbing|yoga|drawing""".replace(
    "\n", ""
).split("|")
ANIMALS = """cat dog mouse fox rabbit bear frog duck owl hen pig goat sheep horse turtle bee ant spider squirrel hedgehog
elephant lion monkey tiger penguin whale crow sparrow snail butterfly""".split()
THINGS = """book lamp chair table window door apple river mountain tree flower garden house bridge boat train bicycle
clock mirror letter basket bottle candle blanket pencil hat shoe coat ball kite drum bell key stone leaf cloud star
moon island forest road lake field spoon plate cup""".split()
NUMBER_WORDS = """zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen
seventeen eighteen nineteen twenty""".split()
DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()
MONTHS = "January February March April May June July August September October November December".split()


def first_name(rng: random.Random) -> str:
    """Return a first name; almost half are made up, so that a name must be copied and cannot be known."""
    if rng.random() < 0.55:
        return rng.choice(FIRST_NAMES)
    syllables = rng.choice([1, 2, 2, 2, 3])
    name = "".join(rng.choice(ONSETS) + rng.choice(VOWELS) for _ in range(syllables)) + rng.choice(CODAS)
    return (name if len(name) > 2 else name + "n").capitalize()


def article(noun: str) -> str:
    """Return the noun with "a" or "an"."""
    return f"{'an' if noun[0].lower() in 'aeiou' else 'a'} {noun}"
