"""Asking about pictures: what every inferencer shares, whatever writes the answers."""
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from rich.progress import track

from .files import ImageError, is_url, list_images, load_image, replace_json
from .structures import FileNames, Prompt, Segmentation
from .visualization.draw import write_image

PromptLike = Prompt | str | dict


class PictureQuery(NamedTuple):
    """One prompt about one picture."""
    index: int
    name: str
    picture: np.ndarray
    prompt: Prompt


class Unanswered(ValueError):
    """A query has no answer, whereas others may have one.

    Attributes:
        results: the answers that there are, in order. Where several were asked together by
            ``ask_batch``: one a query, its answer or the error in its place.
        ends: no further query would be answered either.
    """

    def __init__(self, message: str, results: Sequence = (), ends: bool = False) -> None:
        super().__init__(message)
        self.results, self.ends = list(results), ends


class PromptedInferencer:
    """Pictures and prompts in, answers out: in a list, as files, or in MMDetection's form.

    A subclass says in :meth:`answers` and :meth:`ask_batch` who writes.

    Attributes:
        errors: what the last call passed over with ``on_error='skip'``, a message each.
        notes: what was asked in another way than usual, a sentence each.
        batch_size: queries that are answered together unless told.
        samples: answers that are sampled and voted with the greedy one.
    """
    show_progress = True
    errors: list[str] = []
    notes: Sequence[str] = ()
    batch_size = 1
    samples = 0

    def answers(self, queries: Iterator[PictureQuery], batch_size: int) -> Iterator[tuple]:
        """``(query, sample, result)`` a query, in order: the sample is what ``visualize`` draws,
        the result a :class:`Segmentation` or, in its place, an :class:`Unanswered`. After one that
        ``ends`` no further query is asked."""
        raise NotImplementedError

    def ask_batch(self, asked: Sequence[tuple[np.ndarray, PromptLike]],
                  on_text: Callable[[int, str], bool | None] | None = None
                  ) -> list[Segmentation]:
        """Several loaded pictures and a prompt each, answered together.

        Args:
            asked: pictures ((H, W, 3) uint8, RGB) and prompts.
            on_text: is given the number of the answer and the text written so far, whenever it
                grows; True ends that answer there. What it raises ends the writing of all.

        Raises:
            ValueError: a prompt cannot be used.
        """
        raise NotImplementedError

    def visualize(self, inputs: Sequence[PictureQuery], preds: Sequence, show: bool = False,
                  wait_time: float = 0) -> list[np.ndarray]:
        """Pictures (H, W, 3) uint8 RGB of answers: outline, vertices in order, the text."""
        raise NotImplementedError

    # --- typed ---------------------------------------------------------------------------------
    def segment(self, inputs, prompts, batch_size: int | None = None, on_error: str = 'raise'
                ) -> list[Segmentation]:
        """Answers, picture by picture and prompt by prompt.

        Args:
            inputs, prompts: see the class.
            batch_size: queries that are answered together; None: the inferencer's own number.
            on_error: 'raise' at the first picture or prompt that cannot be used, or 'skip' it;
                what was skipped is in ``self.errors``, a list of messages.

        Raises:
            ValueError: (ImageError among them) names what is wrong, before the model runs on it.
        """
        return _collected(result for *_, result in self.run(inputs, prompts, batch_size, on_error))

    def write(self, inputs, prompts, out_dir: str, batch_size: int | None = None,
              on_error: str = 'raise') -> list[Segmentation]:
        """As :meth:`segment`, with ``out_dir/vis/NAME.png`` and ``out_dir/preds/NAME.json``
        written as the answers come."""
        names = FileNames()

        def written() -> Iterator[Segmentation]:
            for query, sample, result in self.run(inputs, prompts, batch_size, on_error):
                picture = self.visualize([query], [sample])[0]
                _save(Path(out_dir), names.of(query.name, query.index), picture, result)
                yield result
        return _collected(written())

    def ask(self, picture: np.ndarray, prompt: PromptLike,
            on_text: Callable[[str], None] | None = None) -> Segmentation:
        """One prompt about one loaded picture ((H, W, 3) uint8, RGB), without a bar.

        Args:
            on_text: is given the text written so far whenever it grows. What it raises ends the
                writing.

        Raises:
            ValueError: the prompt cannot be used.
        """
        tell = None if on_text is None else lambda _, text: on_text(text)
        return self.ask_batch([(picture, prompt)], tell)[0]

    # --- MMEngine's form -----------------------------------------------------------------------
    def __call__(self, inputs, prompts=None, return_datasamples: bool = False,
                 batch_size: int | None = None, on_error: str = 'raise',
                 return_vis: bool = False, show: bool = False, wait_time: float = 0,
                 no_save_vis: bool = False, no_save_pred: bool = False,
                 print_result: bool = False, out_dir: str = '') -> dict:
        """Answers in MMDetection's form.

        Args:
            inputs, prompts, batch_size, on_error: see :meth:`segment`.
            return_datasamples: give samples instead of dicts.
            return_vis: give the pictures, (H, W, 3) uint8 RGB.
            show, wait_time: show each in a window for so many seconds (0: until a key).
            no_save_vis, no_save_pred: leave pictures or JSON out of ``out_dir``.
            print_result: print each dict.
            out_dir: folder for ``vis/NAME.png`` and ``preds/NAME.json``, written as they come.

        Returns:
            ``predictions``: one a query, :meth:`Segmentation.to_dict`; ``visualization``: the
            pictures or None.
        """
        if prompts is None:
            raise ValueError("say what to segment: prompts='the man in red', "
                             'dict(point=(x, y)) or dict(box=(x1, y1, x2, y2))')
        names, predictions, pictures = FileNames(), [], []
        for query, sample, result in self.run(inputs, prompts, batch_size, on_error):
            visible = return_vis or show or (out_dir and not no_save_vis)
            picture = self.visualize([query], [sample], show, wait_time)[0] if visible else None
            if out_dir:
                _save(Path(out_dir), names.of(query.name, query.index),
                      None if no_save_vis else picture, None if no_save_pred else result)
            if print_result:
                print(json.dumps(result.to_dict()), flush=True)
            if return_vis:
                pictures.append(picture)
            predictions.append(sample if return_datasamples else result.to_dict())
        return dict(predictions=predictions, visualization=pictures if return_vis else None)

    # --- the way -------------------------------------------------------------------------------
    def run(self, inputs, prompts, batch_size: int | None = None, on_error: str = 'raise'
            ) -> Iterator[tuple]:
        """``(query, sample, Segmentation)`` of each answer, as they come; see :meth:`segment`."""
        batch_size = self.batch_size if batch_size is None else batch_size
        if batch_size < 1:
            raise ValueError(f'batch_size is {batch_size}; at least 1')
        if on_error not in ('raise', 'skip'):
            raise ValueError(f"on_error is {on_error!r}; choose 'raise' or 'skip'")
        sources = _sources(inputs)
        asked = prompts_by_picture(prompts, len(sources))
        total, answered, ended = sum(map(len, asked)), 0, None
        self.errors: list[str] = []
        queries = self._queries(sources, asked, on_error)
        if self.show_progress:
            queries = track(queries, total=total, description='Inference')
        for query, sample, result in self.answers(iter(queries), batch_size):
            if not isinstance(result, Unanswered):
                answered += 1
                yield query, sample, result
            elif not (result.ends and ended):  # said once
                self._fault(result, on_error, '' if result.ends else f'{query.name}: ')
                ended = ended or (len(self.errors) if result.ends else None)
        if ended:
            self.errors[ended - 1] += (f'. {total - answered} of {total} queries have no answer; '
                                       'what was answered is kept')

    def _queries(self, sources: list, asked: list[list[Prompt]], on_error: str
                 ) -> Iterator[PictureQuery]:
        """Pictures are read one after the other, each once."""
        for index, (source, prompts) in enumerate(zip(sources, asked)):
            name = str(source) if isinstance(source, (str, Path)) else str(index)
            try:
                picture = load_image(source, name if name == str(source) else f'picture {index}')
            except ImageError as error:
                self._fault(error, on_error)
                continue
            for prompt in prompts:
                try:
                    yield PictureQuery(index, name, picture, prompt.within(picture.shape[:2]))
                except ValueError as error:
                    self._fault(ValueError(f'{name}: {error}'), on_error)

    def _fault(self, error: ValueError, on_error: str, where: str = '') -> None:
        if on_error == 'raise':
            raise error
        self.errors.append(f'{where}{error}')


def queries_of(asked: Iterable[tuple[np.ndarray, PromptLike]]) -> list[PictureQuery]:
    """Loaded pictures and prompts as queries. Raises ValueError: a prompt cannot be used."""
    return [PictureQuery(index, str(index), picture, Prompt.of(prompt).within(picture.shape[:2]))
            for index, (picture, prompt) in enumerate(asked)]


def prompts_by_picture(prompts, count: int) -> list[list[Prompt]]:
    """A list of prompts for each of ``count`` pictures.

    Raises:
        ValueError: there are none, not one list a picture, or one is no prompt.
    """
    if not isinstance(prompts, (list, tuple)):
        prompts = [prompts]
    if not prompts:
        raise ValueError('no prompt is given')
    if not all(isinstance(entry, (list, tuple)) for entry in prompts):
        return [[Prompt.of(entry) for entry in prompts]] * count
    if len(prompts) != count:
        raise ValueError(f'{len(prompts)} lists of prompts for {count} pictures; give one list a '
                         'picture, or a flat list that is asked of every picture')
    return [[Prompt.of(entry) for entry in entries] for entries in prompts]


def _collected(results: Iterator[Segmentation]) -> list[Segmentation]:
    """A list; what there is of it goes with the error where one ends it."""
    found: list[Segmentation] = []
    try:
        found.extend(results)
    except Unanswered as error:
        error.results = found
        raise
    return found


def _sources(inputs) -> list:
    """The pictures that are meant: of a folder, a list, or one."""
    if isinstance(inputs, (str, Path)) and not is_url(inputs) and Path(inputs).is_dir():
        return list_images(inputs)
    inputs = list(inputs) if isinstance(inputs, (list, tuple)) else [inputs]
    if not inputs:
        raise ValueError('no picture is given')
    return inputs


def _save(out_dir: Path, name: str, picture: np.ndarray | None,
          result: Segmentation | None) -> None:
    if picture is not None:
        write_image(picture, out_dir / 'vis' / f'{name}.png')
    if result is not None:
        path = out_dir / 'preds' / f'{name}.json'
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_json(path, result.to_dict())
