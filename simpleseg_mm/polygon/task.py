"""What a query gives and what it asks for: the one list of tasks.

A task is named ``<given>2<wanted>``, as configs and samples name it: 'text2mask', 'point2box'.
'text2masks' asks for every instance of what the words say, one mask each; so do 'text2boxes' and
'text2points'.
'image2objects' asks for all objects of a picture with their names. A question in words that is
answered in words is the task 'question'.
"""
from dataclasses import dataclass

#: what a query can give
GIVEN = ('text', 'point', 'box', 'mask')
#: what it can ask for: how the grammar writes it (None: an answer in words)
WANTED = {'text': None, 'point': 'point', 'box': 'box', 'mask': 'rings', 'extreme': 'point',
          'masks': 'masks', 'boxes': 'boxes', 'points': 'points', 'objects': 'objects'}
#: what asks for every instance: what asks for one
MANY = {'masks': 'mask', 'boxes': 'box', 'points': 'point', 'objects': 'mask'}
#: what is asked of a picture alone, which says of each instance what it is, too
NAMED = ('objects', )


@dataclass(frozen=True)
class Task:
    """One kind of query.

    Attributes:
        given: one of ``GIVEN``, or 'question', or 'image'.
        wanted: one of ``WANTED``; of a question 'text', of an image 'objects'.

    Raises:
        ValueError: there is no such task.
    """
    given: str
    wanted: str

    def __post_init__(self) -> None:
        if (self.given, self.wanted) not in (('question', 'text'), ('image', 'objects')) and (
                self.given not in GIVEN or self.wanted not in WANTED or self.given == self.wanted
                or self.many and self.given != 'text' or self.named):
            raise ValueError(f'there is no task from {self.given!r} to {self.wanted!r}; choose '
                             f'from {list(TASKS)}, or question to text')

    @property
    def name(self) -> str:
        """As configs and samples name it."""
        return 'question' if self.given == 'question' else f'{self.given}2{self.wanted}'

    @property
    def kind(self) -> str | None:
        """'rings', 'box', 'point', or a list of them, 'masks', 'boxes', 'points' or 'objects':
        what the grammar writes; None for an answer in words."""
        return WANTED[self.wanted]

    @property
    def many(self) -> bool:
        """Whether every instance is asked for, in a list."""
        return self.wanted in MANY

    @property
    def named(self) -> bool:
        """Whether each instance has a name in the answer."""
        return self.wanted in NAMED

    @property
    def single(self) -> 'Task':
        """The task that asks for one answer about the same: of 'text2masks' 'text2mask', and of
        'image2objects', too: about one by its name."""
        return Task('text' if self.named else self.given, MANY.get(self.wanted, self.wanted))

    @property
    def for_absent(self) -> 'Task':
        """The task that is asked where the target is absent: it has no point, box or mask to
        give, and no words to ask for."""
        if self.named:
            return self
        return Task('text', 'mask' if self.wanted == 'text' else self.wanted)

    @classmethod
    def from_name(cls, name: str) -> 'Task':
        """Build by name; ValueError for a name that is none."""
        task = cls.find(name)
        if task is None:
            raise ValueError(f'unknown task {name!r}; choose from {tuple(TASKS)}')
        return task

    @classmethod
    def find(cls, name: str | None) -> 'Task | None':
        """The task of that name; None where there is none, as in samples of one's own."""
        if name == 'question':
            return cls('question', 'text')
        return TASKS.get(name) if isinstance(name, str) else None


#: the tasks of :class:`simpleseg_mm.datasets.FormatQuery`, by name
TASKS = {task.name: task for task in (
    *(Task(given, wanted) for given in GIVEN for wanted in (*GIVEN, 'extreme')
      if given != wanted),
    *(Task('image' if wanted in NAMED else 'text', wanted) for wanted in MANY))}
