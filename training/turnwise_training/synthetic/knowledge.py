"""Single exchanges of simple knowledge, and short stories and sentences made from templates."""

import random

from turnwise_training.synthetic.words import ANIMALS, COLOURS, FOODS, THINGS, article, first_name

Pair = tuple[str, str]

DEFINITIONS = """cat: A cat is a small furry animal that many people keep as a pet.|dog: A dog is a friendly animal that often lives with people.|
sun: The sun is a star. It gives us light and warmth.|moon: The moon goes around the Earth. We can often see it at night.|
tree: A tree is a tall plant with a trunk, branches and leaves.|river: A river is water that flows across the land to the sea.|
book: A book has pages with words and pictures. People read it.|school: A school is a place where children learn.|
rain: Rain is water that falls from clouds in small drops.|snow: Snow is frozen water that falls from clouds as white flakes.|
bridge: A bridge helps people cross a river or a road.|bee: A bee is a small insect that makes honey.|ocean: An ocean is a very large area of salt water.|
mountain: A mountain is a very high piece of land.|computer: A computer is a machine that works with information.|
bicycle: A bicycle is a vehicle with two wheels. You move it with your feet.|doctor: A doctor helps people who are sick.|
teacher: A teacher helps people learn new things.|farmer: A farmer grows food and keeps animals.|elephant: An elephant is a very large grey animal with a long trunk.|
lion: A lion is a big wild cat. It lives mostly in Africa.|friend: A friend is someone you like and trust.|island: An island is land with water all around it.|
desert: A desert is a dry place with very little rain.|forest: A forest is a large area with many trees.|kitchen: A kitchen is a room where people cook food.|
library: A library is a place where you can read and borrow books.|clock: A clock shows the time.|star: A star is a huge ball of hot gas far away in space.|
cloud: A cloud is made of tiny drops of water in the sky.|planet: A planet is a large round object that goes around a star. We live on the planet Earth.|
honey: Honey is a sweet food that bees make from flowers.|bread: Bread is a food made from flour and water. It is baked in an oven.|
cheese: Cheese is a food made from milk.|butterfly: A butterfly is an insect with large, colourful wings.|umbrella: An umbrella keeps you dry when it rains.|
winter: Winter is the coldest season of the year.|summer: Summer is the warmest season of the year.|piano: A piano is a musical instrument with black and white keys.|
train: A train carries people or goods on rails.|whale: A whale is a very large animal that lives in the sea.|gravity: Gravity is the force that pulls things towards the ground.|
democracy: Democracy means that the people choose who governs them.|internet: The internet connects computers all over the world.|
language model: A language model is a computer program that has learned to write text.|volcano: A volcano is a mountain that can throw out hot melted rock.|
dictionary: A dictionary is a book that explains words.|hospital: A hospital is a place where doctors and nurses care for sick people.|
newspaper: A newspaper tells people what has happened.|vegetable: A vegetable is a plant that people eat, such as a carrot.|fruit: A fruit is a part of a plant with seeds in it. Apples are fruit.""".replace(
    "\n", ""
).split("|")
ANSWERS = """Why is the sky blue?|The sky looks blue because the air spreads blue light more than other colours.
Why do we sleep?|We sleep so that our body and our mind can rest.
Why do birds sing?|Birds sing to find a partner and to keep others away.
Why do leaves fall in autumn?|Trees drop their leaves in autumn to save water in winter.
Where do fish live?|Fish live in water, in rivers, lakes and seas.
Where does milk come from?|Most milk comes from cows.
What do bees make?|Bees make honey.
What do cows eat?|Cows eat grass.
What do plants need to grow?|Plants need light, water and air to grow.
How many legs does a spider have?|A spider has eight legs.
How many legs does a dog have?|A dog has four legs.
How many legs does an insect have?|An insect has six legs.
How many fingers do I have?|Most people have ten fingers.
How many letters are in the alphabet?|The English alphabet has 26 letters.
How many continents are there?|There are seven continents.
How many wheels does a car have?|Most cars have four wheels.
What is the largest animal?|The blue whale is the largest animal in the world.
What is the fastest animal on land?|The cheetah is the fastest animal on land.
What is the tallest animal?|The giraffe is the tallest animal.
What is the highest mountain?|Mount Everest is the highest mountain in the world.
What is the largest ocean?|The Pacific Ocean is the largest ocean.
What is the largest planet?|Jupiter is the largest planet that goes around our sun.
Which planet do we live on?|We live on the planet Earth.
What is water made of?|Water is made of hydrogen and oxygen.
What is ice?|Ice is frozen water.
At what temperature does water boil?|Water boils at 100 degrees Celsius.
At what temperature does water freeze?|Water freezes at 0 degrees Celsius.
Is the sun a star or a planet?|The sun is a star.
Is a tomato a fruit?|Yes, a tomato is a fruit, but people cook it like a vegetable.
Is fire hot or cold?|Fire is hot.
Can penguins fly?|No, penguins cannot fly, but they swim very well.
Can fish walk?|No, fish swim in the water.
Can dogs fly?|No, dogs cannot fly.
Do cats eat mice?|Yes, cats like to hunt and eat mice.
Who wrote Romeo and Juliet?|William Shakespeare wrote "Romeo and Juliet".
What language do people speak in France?|People in France speak French.
What language do people speak in Spain?|People in Spain speak Spanish.
What language do people speak in Germany?|People in Germany speak German.
What do you do with an umbrella?|You hold an umbrella over your head to stay dry in the rain.
What do you use to cut paper?|You use scissors to cut paper.
What do you wear on your feet?|You wear shoes on your feet.
What do you wear on your head?|You wear a hat on your head.
Where do you buy bread?|You can buy bread in a bakery or a shop.
Where do you keep milk?|You keep milk in the fridge.
Where do children learn?|Children learn at school.
What is a good breakfast?|Bread, fruit and yoghurt make a good breakfast.
How do I make tea?|Boil some water, pour it over the tea and wait a few minutes. Then take the tea out and enjoy it.
How do I boil an egg?|Put the egg in boiling water for about eight minutes. Then cool it with cold water.
How do I make a sandwich?|Take two slices of bread, put cheese and tomato between them, and enjoy your sandwich.
How can I sleep better?|Go to bed at the same time every day, keep the room dark, and do not look at your phone.
How can I learn English?|Read easy books, listen to English every day, and talk with people.
How can I make friends?|Be kind, ask people questions, and join a club or a sport that you enjoy.
How can I stay healthy?|Eat fruit and vegetables, move every day, and sleep enough.
How do I plant a seed?|Put the seed in the soil, give it some water, and set it in a sunny place.
How do I clean my room?|Put your things away first, then wipe the dust and clean the floor.
What are the primary colours?|The primary colours are red, yellow and blue.
How do you mix green?|You get green when you mix blue and yellow.
How do you mix orange?|You get orange when you mix red and yellow.
How do you mix purple?|You get purple when you mix red and blue.
How do you spell cat?|You spell it c, a, t.
How do you spell dog?|You spell it d, o, g.
How do you say hello in Spanish?|In Spanish you say "hola".
How do you say hello in French?|In French you say "bonjour".
How do you say thank you in German?|In German you say "danke".
How do you say thank you in French?|In French you say "merci".
Tell me a fun fact.|Here is a fun fact: an octopus has three hearts.
Tell me something interesting.|Did you know that honey can stay good for a very long time?
Tell me a fact about animals.|A group of lions is called a pride.
Tell me a fact about space.|The light of the sun needs about eight minutes to reach the Earth.
Tell me a joke.|Why did the bicycle fall over? Because it was too tired!
Tell me a joke.|What do you call a bear with no teeth? A gummy bear!
Can you tell me a joke?|Why did the teddy bear not eat dessert? He was already stuffed!
Make me laugh.|What is orange and sounds like a parrot? A carrot!
Tell me another joke.|Why are fish so clever? Because they live in schools!
Do you know a joke?|What kind of tree fits in your hand? A palm tree!
Give me some advice.|Be patient with yourself, and take one step at a time.
How do I kill time at the airport?|You could read a book, listen to music or watch the planes.
How do I kill weeds in my garden?|Pull them out by the root, or cover the soil so that they get no light.
How can I steal the show at a party?|Prepare a good story or a song, smile, and enjoy yourself.
How do I shoot a good photo?|Use soft light, hold the camera still, and choose a simple background.""".split(
    "\n"
)
DEFINED = (
    "What is {}?",
    "What's {}?",
    "Tell me what {} is.",
    "Can you explain what {} is?",
    "Explain to me what {} is.",
    "Please tell me what {} is.",
)
PLACES = "in a small village|near a big forest|by the sea|on a quiet farm|at the edge of a town|in a green valley|beside a long river".split(
    "|"
)
TRAITS = "kind|brave|shy|clever|lazy|curious|small|old|young|hungry|friendly|lonely".split("|")
STORY_ASKED = (
    "Tell me a story about {}.",
    "Can you tell me a story about {}?",
    "Please tell me a short story about {}.",
    "Write a short story about {}.",
    "Tell me a very short story about {}.",
    "I want to hear a story about {}.",
)
PROBLEMS = (
    (
        "One day it lost its {thing} and could not find it anywhere.",
        "A {other} saw this and helped to look for it.",
        "Together they found the {thing} under a tree.",
    ),
    (
        "One day there was a big storm and the {other} next door had no home.",
        "The {hero} opened the door and shared its supper.",
        "When the sun came out, they built a new house together.",
    ),
    (
        "It wanted to learn how to sing, but it was afraid.",
        'A {other} said, "Try it with me."',
        "They sang every evening, and soon everyone came to listen.",
    ),
    (
        "One morning it found a {colour} {thing} on the road.",
        'It asked everyone, and at last a {other} said, "That is mine!"',
        "The {other} was so happy that it invited the {hero} to lunch.",
    ),
    (
        "It had nobody to play with.",
        'Then a {other} moved in next door and asked, "Shall we play?"',
        "They played with a {thing} until the stars came out.",
    ),
    (
        "One night it could not sleep, because the wind was loud.",
        "A {other} came and told it a story about a {colour} {thing}.",
        "Soon the {hero} was asleep and dreamed of it.",
    ),
    (
        "It was very hungry, but there was no food in the house.",
        "A {other} came by with a basket of {food}.",
        "They ate together, and both of them were happy.",
    ),
)
ENDINGS = (
    "From that day on they were best friends.",
    "And they lived happily ever after.",
    "The {hero} learned that it is good to share.",
    "The {hero} never felt alone again.",
    "It was the best day of the year.",
)


def define(rng: random.Random) -> Pair:
    """Return a question for a simple thing and its definition."""
    thing, _, meaning = rng.choice(DEFINITIONS).partition(": ")
    bare = thing in {"rain", "snow", "honey", "bread", "cheese", "winter", "summer", "gravity", "democracy"}
    named = thing if bare else f"the {thing}" if thing in {"sun", "moon", "internet"} else article(thing)
    return rng.choice(DEFINED).format(named), meaning


def answer(rng: random.Random) -> Pair:
    """Return a question of common knowledge and its answer."""
    question, _, reply = rng.choice(ANSWERS).partition("|")
    return question, reply


def story(rng: random.Random) -> Pair:
    """Return a request for a story and a story of five or six sentences."""
    hero, other = rng.sample(ANIMALS, 2)
    values = {
        "hero": hero,
        "other": other,
        "thing": rng.choice(THINGS),
        "colour": rng.choice(COLOURS),
        "food": rng.choice(FOODS),
    }
    named = rng.random() < 0.4
    name = first_name(rng)
    trait = rng.choice(TRAITS)
    opening = f"Once upon a time there was {article(trait)} {hero}{f' named {name}' if named else ''} who lived {rng.choice(PLACES)}."
    sentences = [part.format(**values) for part in (*rng.choice(PROBLEMS), rng.choice(ENDINGS))]
    topic = rng.choice(
        [article(hero), article(hero), f"{article(hero)} and {article(other)}", f"{article(trait)} {hero}"]
    )
    if named and rng.random() < 0.5:
        topic = f"{article(hero)} named {name}"
    if rng.random() < 0.2:
        return rng.choice(
            [
                "Tell me a story.",
                "Can you tell me a story?",
                "I want to hear a story.",
                "Please tell me a short story.",
                "Tell me a bedtime story.",
            ]
        ), " ".join([opening, *sentences])
    return rng.choice(STORY_ASKED).format(topic), " ".join([opening, *sentences])


def sentence(rng: random.Random) -> Pair:
    """Return a request for a sentence and the sentence."""
    thing = rng.choice([*ANIMALS, *THINGS])
    made = rng.choice(
        [
            f"The {thing} is {rng.choice(COLOURS)}.",
            f"There is {article(thing)} in the garden.",
            f"I saw {article(thing)} on my way to school.",
            f"My sister drew {article(thing)} with a pencil.",
            f"We found {article(thing)} near the river.",
            f"The old man told us about the {thing}.",
        ]
    )
    asked = rng.choice(
        [
            "Write a sentence about {}.",
            'Make a sentence with the word "{}".',
            "Use the word {} in a sentence.",
            "Write a sentence with the word {}.",
            "Give me a sentence about {}.",
        ]
    )
    return asked.format(article(thing) if "about" in asked else thing), made


def knowledge(rng: random.Random) -> Pair:
    """Return one exchange of any kind here."""
    return rng.choices([define, answer, story, sentence], weights=[3, 4, 4, 1])[0](rng)
