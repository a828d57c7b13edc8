"""What users ask and models answer in: prompt and answer templates, as plain data.

The prompt of a :class:`simpleseg_mm.polygon.Task` is a question of ``QUESTIONS[wanted]`` about a
subject of ``SUBJECTS[given]``; an extreme point is asked for towards one of ``DIRECTIONS``. The
first template of each list is the one of evaluation. The subjects and questions marked 'paper' are
quoted there; the others are our choice.
"""
from .polygon import Grammar

#: x to the right, y down
DIRECTIONS = {'top': (0, -1), 'top right': (1, -1), 'right': (1, 0), 'bottom right': (1, 1),
              'bottom': (0, 1), 'bottom left': (-1, 1), 'left': (-1, 0), 'top left': (-1, -1)}

SUBJECTS = {
    'text': ('{given}',),
    'point': ('the object at point {given}',),  # paper
    'box': ('the stuff within the box region {given}',  # paper
            'the object in the box {given}'),
    'mask': ('the object with the polygon {given}',
             'the region outlined by {given}'),
    'image': ('every object',),
}
# What is asked of a whole sentence, which is often a question (ReasonSeg). Our choice.
REQUESTS = {
    'mask': ('{given} Output the polygon coordinates in the image.',
             '{given} Show me its contour.'),
    'box': ('{given} Output the bounding box in the image.',
            '{given} Show me the box around it.'),
    'point': ('{given} Output a point on it in the image.',
              '{given} Point at it.'),
    'extreme': ('{given} Output its extreme point towards the {direction} in the image.',),
    'masks': ('{given} Output the polygon coordinates of each in the image.',
              '{given} Show me the contours of all of them.'),
    'boxes': ('{given} Output the bounding box of each in the image.',
              '{given} Show me the boxes around all of them.'),
    'points': ('{given} Output a point on each in the image.',
               '{given} Point at all of them.'),
}
QUESTIONS = {
    'mask': ('Output the polygon coordinates of {subject} in the image.',  # paper
             'What is the polygon of {subject} in the image?',  # paper
             'Show me the contour of {subject}.',  # paper
             'Give the polygon vertices of {subject}.',  # paper
             'Segment {subject} in the image.',
             'Where is the outline of {subject}?'),
    'box': ('Output the bounding box of {subject} in the image.',
            'What is the bounding box of {subject} in the image?',
            'Show me the box around {subject}.',
            'Give the box coordinates of {subject}.'),
    'point': ('Output a point on {subject} in the image.',
              'Where is {subject} in the image?',
              'Point at {subject}.',
              'Give the coordinates of one point inside {subject}.'),
    'extreme': ('Output the extreme point of {subject} towards the {direction} in the image.',
                'Which point of {subject} is farthest to the {direction}?'),
    'masks': ('Output the polygon coordinates of all {subject} in the image.',
              'What are the polygons of all {subject} in the image?',
              'Show me the contours of all {subject}.',
              'Give the polygon vertices of every instance of {subject}.',
              'Segment all {subject} in the image.'),
    'boxes': ('Output the bounding boxes of all {subject} in the image.',
              'What are the bounding boxes of all {subject} in the image?',
              'Show me the boxes around all {subject}.',
              'Give the box coordinates of every instance of {subject}.'),
    'points': ('Output a point on each of all {subject} in the image.',
               'Where are all {subject} in the image?',
               'Point at all {subject}.',
               'Give the coordinates of one point inside every instance of {subject}.'),
    'objects': ('Output the name and the polygon coordinates of {subject} in the image.',
                'Outline {subject} in the image with its name.',
                'What is {subject} in the image, and where is its contour?',
                'Name {subject} in the image and give its polygon vertices.'),
    'text': ('Describe {subject} in the image with a short phrase.',
             'What is {subject}?',
             'Give a phrase that refers to {subject}.'),
}
ANSWERS = {
    'plain': ('{answer}',),
    'sentence': ('{answer}', 'Sure, you can find it at {answer}.', 'It is at {answer}.'),
}
# name: (how many subjects and questions of each list, answers)
TEMPLATE_SETS = {
    'default': (None, 'plain'),
    'single': (1, 'plain'),
    'sentence': (None, 'sentence'),
}


def question_about(given: str, value, size: tuple[int, int], grammar: Grammar,
                   wanted: str = 'mask') -> str:
    """The evaluation's question about what a person gives.

    Args:
        given: 'text', 'point' or 'box'; 'image' for all that it shows.
        value: the expression, or x, y or x1, y1, x2, y2 in pixels; of an image nothing.
        size: (h, w) of the picture.
        grammar: writes the numbers.
        wanted: what is asked for, 'masks' for every instance, 'objects' of an image.
    """
    if given == 'image':
        value = ''
    elif given != 'text':
        value = (grammar.format_point if given == 'point' else grammar.format_box)(value, size)
    subject = SUBJECTS[given][0].replace('{given}', value)
    return QUESTIONS[wanted][0].replace('{subject}', subject)
