"""The account of a conversion: what was read is what is used and what was left out, by reason."""
from collections import Counter

from .sample import clean_text

#: what is counted. A query is a text that one picture is asked for; a prompt is an object that is
#: trained from a point and a box
RECORDS = ('file', 'picture', 'annotation', 'expression', 'query', 'prompt')
_EXAMPLES = 5


class Account:
    """Counts records by kind, with a few examples of each reason.

    Attributes:
        read, used: records of each of :data:`RECORDS`.
        left_out: records that are not used, by kind and reason.
        changed: records that are used otherwise than they were found, by what was done.
        decided: records that a rule was chosen for, by the rule.
        guessed: those of them for which nothing showed that the rule is right.
        examples: where some of each reason are.
    """

    def __init__(self) -> None:
        self.read: Counter[str] = Counter()
        self.used: Counter[str] = Counter()
        self.left_out: dict[str, Counter[str]] = {kind: Counter() for kind in RECORDS}
        self.changed: Counter[str] = Counter()
        self.decided: Counter[str] = Counter()
        self.guessed: Counter[str] = Counter()
        self.examples: dict[str, list[str]] = {}

    def leave(self, kind: str, reason: str, where: str, count: int = 1) -> None:
        """``count`` records of a kind are not used; ``where`` names them."""
        if count:
            self.left_out[kind][reason] += count
            self._example(reason, where)

    def change(self, what: str, where: str, count: int = 1) -> None:
        """``count`` records are used otherwise than they were found."""
        if count:
            self.changed[what] += count
            self._example(what, where)

    def decide(self, rule: str, where: str = '', count: int = 1, guessed: bool = False) -> None:
        """A rule was chosen for ``count`` records; ``guessed``: nothing shows that it is right."""
        if count:
            self.decided[rule] += count
            if guessed:
                self.guessed[rule] += count
            self._example(rule, where)

    @property
    def reasons(self) -> Counter[str]:
        """What was left out, changed or guessed, of all kinds together."""
        total = self.changed + self.guessed
        for reasons in self.left_out.values():
            total.update(reasons)
        return total

    def report(self) -> dict:
        """All counts, as plain dicts. AssertionError: records are lost, or counted twice."""
        for kind in RECORDS:
            missing = self.read[kind] - self.used[kind] - sum(self.left_out[kind].values())
            assert missing == 0, (f'{missing} of {self.read[kind]} records of kind {kind} are '
                                  f'neither used nor left out: {self.left_out[kind]}')
        return dict(
            read=dict(self.read), used={kind: self.used[kind] for kind in self.read},
            left_out={kind: dict(reasons) for kind, reasons in self.left_out.items() if reasons},
            changed=dict(self.changed), decided=dict(self.decided),
            left_out_or_changed=dict(self.reasons))

    def lines(self) -> list[str]:
        """The counts for the screen, each reason with its examples."""
        found = []
        for title, counts in (('left out or changed', self.reasons - self.guessed),
                              ('decided', self.decided)):
            for reason, count in counts.most_common():
                examples = self.examples.get(reason, ())
                found.append(f'{title}: {count} x {reason}' + (', such as:' if examples else ''))
                found += [f'    {where}' for where in examples]
        return found

    def _example(self, reason: str, where: str) -> None:
        examples = self.examples.setdefault(reason, [])
        if where and len(examples) < _EXAMPLES:
            examples.append(clean_text(where, 200))
