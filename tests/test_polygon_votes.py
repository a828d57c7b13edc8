"""Votes of several answers: tiny masks whose vote is known."""
import pickle
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simpleseg_mm.polygon import PolygonCodec, Spans, mask_iou, outline_spread, vote
from simpleseg_mm.polygon.votes import Tally, agreement_of
from simpleseg_mm.structures import Prompt, Segmentation

CODEC = PolygonCodec('default', 'int100', tokens=None)
SIZE = (100, 100)


def box_text(x1, y1, x2, y2) -> str:
    return f'[[[{x1},{y1}],[{x1},{y2}],[{x2},{y2}],[{x2},{y1}]]]'


def answers(*texts, kind='rings', **facts):
    return [CODEC.decode(text, SIZE, kind, **facts) for text in texts]


def rectangle(x1, y1, x2, y2) -> np.ndarray:
    mask = np.zeros(SIZE, bool)
    mask[y1:y2, x1:x2] = True
    return mask


SQUARE = box_text(20, 20, 60, 60)


# --- malformed first --------------------------------------------------------------------------
@pytest.mark.parametrize('texts, text, agreement', [
    (['', 'no', '[[['], '', 0),  # nothing can be read: the greedy one stays
    (['', SQUARE, SQUARE], SQUARE, 2 / 3),  # what cannot be read agrees with none
    (['[[[5,5],[6,5]]]', SQUARE], SQUARE, 1 / 2),  # a ring of two vertices holds no pixel
    (['[[[5,5],[9,5],[7,5]]]', SQUARE, SQUARE], SQUARE, 2 / 3),  # nor does one of no area
    (['[]', '', 'x'], '[]', 1 / 3),
    (['[' * 3000, '[]'], '[]', 1 / 2),
    (['[[[nan,1e999],[3,4],[5,6]]]', SQUARE], SQUARE, 1 / 2),
])
def test_what_cannot_be_read_has_no_vote(texts, text, agreement):
    voted = vote(answers(*texts))
    assert (voted.text, voted.agreement) == (text, pytest.approx(agreement))
    assert agreement_of(voted.voters) == pytest.approx(agreement)
    assert voted.confidence == voted.agreement


@pytest.mark.parametrize('kind', [None, 'point', 'points'])
def test_kinds_that_are_not_voted(kind):
    with pytest.raises(ValueError, match="'rings', 'box'"):
        vote(answers('[3,4]', '[3,5]', kind=kind))


def test_masks_of_two_pictures():
    with pytest.raises(ValueError, match='one picture'):
        vote([CODEC.decode(SQUARE, SIZE), CODEC.decode(SQUARE, (50, 50))])


# --- present or absent ------------------------------------------------------------------------
@pytest.mark.parametrize('texts, text, agreement', [
    (['[]'] * 3, '[]', 1),
    (['[]', SQUARE, SQUARE], SQUARE, 2 / 3),
    ([SQUARE, '[]', '[]'], '[]', 2 / 3),
    ([SQUARE, '[]'], SQUARE, 1 / 2),  # even: as the greedy one says
    (['[]', SQUARE], '[]', 1 / 2),
    (['no', '[]', SQUARE], '[]', 1 / 3),  # or the first that says anything
    ([SQUARE, 'no', 'no', 'no'], SQUARE, 1 / 4),
])
def test_most_answers_say_whether_it_is_there(texts, text, agreement):
    voted = vote(answers(*texts))
    assert (voted.text, voted.agreement) == (text, pytest.approx(agreement))
    assert agreement_of(voted.voters) == pytest.approx(agreement)


# --- masks ------------------------------------------------------------------------------------
@pytest.mark.parametrize('boxes, expected', [
    # the middle one of three is what two of them hold
    ([(20, 20, 60, 60), (20, 20, 50, 60), (20, 20, 70, 60)], (20, 20, 60, 60)),
    # a far one is outvoted
    ([(20, 20, 60, 60), (20, 20, 60, 60), (80, 80, 90, 90)], (20, 20, 60, 60)),
    # none of them is what most of them hold
    ([(10, 20, 50, 60), (20, 20, 60, 60), (20, 10, 50, 70)], (20, 20, 50, 60)),
])
def test_pixels_are_voted(boxes, expected):
    voted = vote(answers(*(box_text(*box) for box in boxes)), tokens=1000)
    assert np.array_equal(voted.mask, rectangle(*expected))
    ious = [mask_iou(rectangle(*expected), rectangle(*box)) for box in boxes]
    assert voted.agreement == pytest.approx(np.mean(ious))
    assert agreement_of(voted.voters) == voted.agreement
    assert voted.parsed.valid and voted.finished is not False


def test_one_answer_alone_is_itself_and_of_two_the_first_stays():
    alone, = answers(SQUARE, confidence=0.3, num_tokens=7)
    assert vote([alone]) is alone and alone.agreement is None and alone.spread is None
    two = vote(answers(SQUARE, box_text(20, 20, 60, 50)))
    assert (two.text, two.agreement) == (SQUARE, pytest.approx((1 + 0.75) / 2))
    assert [voter.text for voter in two.voters] == [SQUARE, box_text(20, 20, 60, 50)]


def test_costs_are_those_of_all_answers():
    voted = vote(answers(SQUARE, SQUARE, '[]', num_tokens=5, seconds=2.0, finished=False))
    assert (voted.num_tokens, voted.seconds) == (15, 6.0)
    assert vote(answers(SQUARE, SQUARE)).num_tokens is None


def test_confidence_is_agreement_times_token_probability():
    given = [CODEC.decode(text, SIZE, confidence=sure) for text, sure in (
        (SQUARE, 0.9), (SQUARE, 0.5), ('[]', 0.7))]
    voted = vote(given)
    assert voted.confidence == pytest.approx(2 / 3 * 0.7)
    assert vote([*given, *answers(SQUARE)]).confidence == pytest.approx(3 / 4)  # one is not known
    listed_ones = [CODEC.decode(f'[{SQUARE}]', SIZE, 'masks', confidence=sure)
                   for sure in (0.5, 0.7)]
    voted = vote(listed_ones)
    assert voted.scores == pytest.approx((0.6, )) and voted.agreements == (1, )


@pytest.mark.parametrize('spec', ['int100/default', 'fixed3/paper', 'decimal3/paper-exact'])
def test_what_is_written_decodes_to_the_vote(spec):
    codec = PolygonCodec.from_spec(spec)
    y, x = np.mgrid[:SIZE[0], :SIZE[1]]
    disks = [(x - 50 - dx) ** 2 + (y - 50 - dy) ** 2 < 900
             for dx, dy in ((-6, 0), (6, 0), (0, -6), (0, 6), (-4, 4), (4, 4), (4, -4))]
    given = [codec.decode(codec.encode(disk), SIZE) for disk in disks]
    voted = vote(given)
    tally = Tally.of([answer.spans for answer in given])
    best = max((tally.level(k) for k in range(1, 6)), key=lambda mask: np.mean(
        [mask.iou(answer.spans) for answer in given]))
    assert voted.spans.iou(best) > 0.97 and voted.parsed.valid
    assert voted.codec.spec == spec


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2 ** 32 - 1), st.integers(1, 6), st.integers(1, 8), st.integers(1, 8))
def test_tally_counts_pixels(seed, count, h, w):
    rng = np.random.default_rng(seed)
    masks = rng.random((count, h, w)) < rng.choice([0, 0.1, 0.5, 0.9, 1], (count, 1, 1))
    tally = Tally.of([Spans.from_mask(mask) for mask in masks])
    for least in range(1, count + 1):
        level = masks.sum(axis=0) >= least
        assert np.array_equal(tally.level(least).mask, level)
        assert tally.level_ious[least] == pytest.approx(
            np.mean([mask_iou(level, mask) for mask in masks]))
    assert tally.ious == pytest.approx(np.array(
        [[mask_iou(one, other) for other in masks] for one in masks]))


def test_runs_are_worked_on_in_parts(monkeypatch):
    masks = [Spans.from_mask(np.random.default_rng(i).random((30, 40)) < 0.5) for i in range(5)]
    whole = Tally.of(masks)
    monkeypatch.setattr('simpleseg_mm.polygon.votes._CHUNK', 7)
    part = Tally.of(masks)
    for name in ('counts', 'shared', 'covered', 'areas'):
        assert np.array_equal(getattr(whole, name), getattr(part, name)), name


# --- boxes ------------------------------------------------------------------------------------
@pytest.mark.parametrize('texts, text, agreement', [
    (['[10,10,30,30]', '[10,10,30,30]', '[50,50,90,90]'], '[10,10,30,30]', 2 / 3),
    (['[10,10,30,30]', '[10,12,30,30]', '[12,10,30,30]'], '[10,10,30,30]', (1 + .9 + .9) / 3),
    (['[10,10,30,30]', '[20,10,40,30]'], '[15,10,35,30]', 0.6),
    (['[]', '[]', '[1,2,3,4]'], '[]', 2 / 3),
    (['[]', '[5,5]', '[1,2,3,4]', '[1,2,3,4]'], '[1,2,3,4]', 1 / 2),
])
def test_sides_of_boxes_are_the_median(texts, text, agreement):
    voted = vote(answers(*texts, kind='box'))
    assert (voted.text, voted.agreement) == (text, pytest.approx(agreement))
    assert agreement_of(voted.voters) == pytest.approx(agreement)


# --- lists ------------------------------------------------------------------------------------
A, B, C = (box_text(*corners) for corners in ((5, 10, 25, 30), (40, 10, 60, 30),
                                              (70, 10, 90, 30)))
NEAR_B = box_text(40, 10, 60, 28)


def listed(*texts) -> str:
    return f'[{",".join(texts)}]'


@pytest.mark.parametrize('texts, found, agreement, scores', [
    ([listed(A, B)] * 3, [A, B], 1, (1, 1)),
    # as many as most say: two; those that most hold
    ([listed(A, B), listed(B, C), listed(A, B, C)], [A, B], (1 + .5 + 2 / 3) / 3, (2 / 3, 1)),
    ([listed(A, B, C), listed(A, B), listed(B, C), listed(B)], [A, B],
     (2 / 3 + 1 + .5 + .5) / 4, (.5, 1)),
    # of one, two and three the first says
    ([listed(A, B), listed(B), listed(A, B, C)], [A, B], (1 + .5 + 2 / 3) / 3, (2 / 3, 1)),
    # whatever the order in which they are written
    ([listed(B, A), listed(A, B), listed(C, B, A)], [A, B], (1 + 1 + 2 / 3) / 3, (1, 1)),
    # even: as the first says
    ([listed(A), listed(A, B)], [A], (1 + .5) / 2, (1, )),
    ([listed(A, B), listed(A)], [A, B], (1 + .5) / 2, (1, .5)),
    (['[]', listed(A)], [], 1 / 2, ()),
    (['[]', '[]', listed(A)], [], 2 / 3, ()),
    ([listed(A), listed(B), listed(C)], [A], 1 / 3, (1 / 3, )),  # they disagree on which
    ([listed(A, B), listed(C), listed(C)], [C], 2 / 3, (2 / 3, )),
    # what cannot be read has no vote, and agrees with none
    (['', listed(A, B), listed(A, B)], [A, B], 2 / 3, (2 / 3, 2 / 3)),
    (['x', '[[[', ''], None, 0, ()),
    # the same instance twice is matched once
    ([listed(A, A), listed(A), listed(A)], [A], (.5 + 1 + 1) / 3, (1, )),
    # each is voted
    ([listed(A, NEAR_B), listed(A, B), listed(A, B)], [A, B],
     ((1 + .9) / 2 + 1 + 1) / 3, (1, 2.9 / 3)),
    # cut in the middle of the second: its first counts
    ([listed(A, B)[:-20], listed(A, B), listed(A, B)], [A, B], None, None),
])
def test_instances_are_matched_and_voted(texts, found, agreement, scores):
    voted = vote(answers(*texts, kind='masks'), tokens=1000)
    if found is None:
        assert (voted.text, voted.agreement) == (texts[0], 0)
        return
    wanted = CODEC.decode(listed(*found), SIZE, 'masks')
    assert [one.spans.borders.tolist() for one in voted.instances] == [
        one.spans.borders.tolist() for one in wanted.instances]
    if agreement is not None:
        assert voted.agreement == pytest.approx(agreement)
        assert voted.scores == pytest.approx(scores)
        assert [one.confidence for one in voted.instances] == pytest.approx(scores)
        assert [one.agreement for one in voted.instances] == pytest.approx(scores)
    assert voted.parsed.valid


def test_boxes_in_lists():
    texts = ['[[10,10,30,30],[50,10,70,30]]', '[[10,12,30,30],[50,10,70,30]]',
             '[[50,10,70,30],[10,11,30,30],[1,90,5,95]]']
    voted = vote(answers(*texts, kind='boxes'))
    assert voted.text == '[[10,11,30,30],[50,10,70,30]]'
    assert voted.scores == pytest.approx(((19 / 20 + 18 / 19 + 1) / 3, 1))


def test_many_instances_are_matched_in_bounded_work(monkeypatch):
    from simpleseg_mm.polygon import votes
    count, iou = [0], Spans.iou

    def counted(self, other):
        count[0] += 1
        return iou(self, other)

    monkeypatch.setattr(Spans, 'iou', counted)
    text = listed(*(box_text(x, y, x + 4, y + 4) for x in range(0, 95, 6)
                    for y in range(0, 95, 8)))
    codec = PolygonCodec('default', 'int100', tokens=None)
    given = [codec.decode(text, SIZE, 'masks') for _ in range(5)]
    assert len(given[0].instances) > 150
    voted = votes.vote(given)
    assert len(voted.instances) == len(given[0].instances) == len(voted.scores)
    assert voted.agreement == pytest.approx(1) and count[0] < 20 * len(given[0].instances)


# --- how sure each vertex is ------------------------------------------------------------------
def test_spread_of_vertices():
    """A triangle's right corner differs by up to 8 pixels, the others do not."""
    texts = [f'[[[10,10],[10,50],[{x},50]]]' for x in (50, 50, 50, 46, 58)]
    given = answers(*texts, '[]', 'x')
    corner = [50, 50, 50, 46, 58]
    apart = [0, 0, 0, 4, _to_line((50, 50), (10, 10), (58, 50))]
    spread, = outline_spread(given[0].rings, [answer.rings for answer in given])
    assert spread[2] == pytest.approx(np.quantile(apart, [0.5, 0.9]))
    assert spread[:2] == pytest.approx(np.zeros((2, 2)), abs=1e-9)
    assert len(corner) == len(apart)
    voted = vote(given)
    assert [len(ring) for ring in voted.spread] == [len(ring) for ring in voted.rings]
    twice = voted.at((200, 200))
    assert twice.spread[0] == pytest.approx(2 * voted.spread[0])


def _to_line(point, begin, end) -> float:
    (x, y), (x1, y1), (x2, y2) = point, begin, end
    on_side = min(abs(y - y2), abs((x2 - x1) * (y - y1) - (y2 - y1) * (x - x1))
                  / np.hypot(x2 - x1, y2 - y1))
    return on_side


def test_spread_without_outlines():
    ring = np.array([[1., 2], [3, 4], [5, 7]])
    found, = outline_spread([ring], [[], []])
    assert found.shape == (3, 2) and np.isnan(found).all()
    assert vote(answers('[]', '[]')).spread == []


def test_votes_are_records():
    voted = vote(answers(SQUARE, SQUARE, SQUARE))
    copy = pickle.loads(pickle.dumps(voted))
    assert (copy.text, copy.agreement, len(copy.voters)) == (SQUARE, 1.0, 3)


def test_vertices_of_a_list_are_held_against_their_own_instance():
    """Two squares that touch: where one ends differs, though the other's outline is there."""
    other = box_text(30, 10, 50, 30)
    voters = tuple(answers(*[f'[{box_text(10, 10, right, 30)},{other}]' for right in (30, 26, 26)],
                           f'[{other}]', kind='masks', num_tokens=1, seconds=1.0))
    answer = replace(voters[0], voters=voters)
    first, second = answer.spread
    by_place = {tuple(place): widths.tolist() for place, widths in zip(
        answer.instances[0].rings[0].round().astype(int).tolist(), first)}
    assert by_place[30, 10] == pytest.approx([4, 4]) and by_place[10, 10] == pytest.approx([0, 0])
    assert np.all(second == 0)
    result = Segmentation.of(answer, 'a', Prompt(
        text='squares', all=True))
    assert [len(rings) for rings in result.spread] == [1, 1]
    assert np.nanmax(result.spread[0][0]) == pytest.approx(4) and not result.spread[1][0].any()
