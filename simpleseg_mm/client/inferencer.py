"""The inferencer whose model runs behind an OpenAI-compatible server."""
import math
import os
import re
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError, Future
from dataclasses import replace

import numpy as np
from PIL import Image
from tokenizers import Tokenizer

from ..answers import instance_masks, read_answer
from ..asking import PictureQuery, PromptedInferencer, PromptLike, Unanswered, queries_of
from ..files import shown
from ..polygon import Answer, PolygonCodec, Task, export_grammar, outside_grammar
from ..second_look import cut_out, look_of
from ..structures import Segmentation
from ..taught import Taught
from ..templates import question_about
from ..visualization.painter import QueryPainter
from .chat import ChatClient, Reply, data_url
from .form import AskedForm
from .transport import EndpointError

#: how servers take a grammar, of a name and for a kind of answer: the key of the request
ENGINES: dict[str, Callable[[str, str], dict]] = {
    'vllm': lambda grammar, kind: dict(structured_outputs=dict(
        regex=export_grammar(grammar, kind, 'regex'))),
    'sglang': lambda grammar, kind: dict(regex=export_grammar(grammar, kind, 'regex')),
    'llama.cpp': lambda grammar, kind: dict(grammar=export_grammar(grammar, kind, 'gbnf')),
}
#: what such servers say in ``owned_by`` of their models
_OWNERS = {'vllm': 'vllm', 'sglang': 'sglang', 'llamacpp': 'llama.cpp', 'llama.cpp': 'llama.cpp'}
_CORNER = 0.11  # share of the picture in which outlines of a tenth of the grammar's steps lie
_CORNER_AFTER = 4  # outlines of pictures
_IN_VAIN = 20  # queries in a row without an answer, after which none is asked any more
_MARK = re.compile(r'<\|[^<>|\s]{1,60}\|>')  # a special token, where the tokenizer is not known


class EndpointInferencer(PromptedInferencer):
    """Segments as :class:`~simpleseg_mm.apis.SimpleSegInferencer` does, by the model of a server.

        inferencer = EndpointInferencer('http://localhost:8000/v1', 'FOLDER_THAT_IT_SERVES')
        result, = inferencer.segment('scene.png', 'red circle')

    Pictures, prompts, answers and files are those of that class; prompts are written by the same
    templates. Greedy. Where the processor is known, a picture is sent in the size to which the
    server's own would bring it, as PNG.

    Args:
        endpoint: address of the server, ``http://host:8000/v1``.
        model: what it serves: folder by ``to_huggingface.py`` (its JSON files are enough) or
            ``simpleseg_mm://NAME``. It says how answers are written, what was taught, and how
            large pictures are. None: the released weights are meant, unless ``codec`` is given.
        codec: how answers are written, 'int1000/default'; None: as the folder says.
        served_model_name: the model's name there; None: the only one that it serves.
        api_key: None: the environment's ``OPENAI_API_KEY``, if there is one.
        timeout, retries, wait, concurrency: see :class:`ChatClient`.
        max_tokens: of an answer; None: as the folder says, else 1024.
        max_pixels: of a picture that is sent; None: as the folder says, else as it is.
        constrain: hold answers to the grammar, in the way of 'vllm', 'sglang' or 'llama.cpp';
            'auto': as the server names itself.
        show_progress: whether to show a bar.
        second_look: see :func:`simpleseg_mm.second_look.look_of`; crops are further requests. One
            that fails leaves the first answer, with a warning.

    Attributes:
        notes: what the server does not take and was left out, a sentence each.

    Raises:
        FileNotFoundError, ValueError: (:class:`EndpointError` among them) no such folder, no
            server, not the model that is meant.
    """

    def __init__(self, endpoint: str, model: str | None = None, codec: str | None = None,
                 served_model_name: str | None = None, api_key: str | None = None,
                 timeout: float = 120.0, retries: int = 3, wait: float = 1.0,
                 concurrency: int = 8, max_tokens: int | None = None,
                 max_pixels: int | None = None, constrain: str | None = None,
                 show_progress: bool = True, second_look: bool | dict | None = None) -> None:
        if constrain is not None and constrain not in (*ENGINES, 'auto'):
            raise ValueError(f'constrain is {constrain!r}; choose from {["auto", *ENGINES]}')
        self.form = AskedForm.of(model, codec, max_tokens, max_pixels)
        self.second_look = look_of(second_look, self.form.taught)
        key = os.environ.get('OPENAI_API_KEY') if api_key is None else api_key
        self.client = ChatClient(endpoint, key, timeout, retries, wait, concurrency)
        self.batch_size, self.show_progress = concurrency, show_progress
        self.errors: list[str] = []
        self.painter = QueryPainter()
        entry = self.client.served(served_model_name)
        self.served_model_name = entry['id']
        self._special = self._check_tokenizer()
        self.constrain = constrain
        self._held = None if constrain is None else self._engine(constrain, entry)
        self._unsure = False  # an answer came without log-probabilities
        self._farthest = [0, 0.0]  # outlines, and the largest share of a coordinate in them

    @property
    def codec(self) -> PolygonCodec:
        """How the outlines in answers are written."""
        return self.form.codec

    @property
    def taught(self) -> Taught:
        """What the served model was taught, as the folder says."""
        return self.form.taught

    @property
    def notes(self) -> list[str]:
        unsure = self._unsure and not any('logprobs' in note for note in self.client.notes)
        return self.client.notes + unsure * [
            'the server passes over logprobs in silence: answers have no confidence']

    # --- asking --------------------------------------------------------------------------------
    def ask_batch(self, asked: Sequence[tuple[np.ndarray, PromptLike]],
                  on_text: Callable[[int, str], bool | None] | None = None
                  ) -> list[Segmentation]:
        queries = queries_of(asked)
        flight = [self._start(query, None if on_text is None else _told(on_text, query.index))
                  for query in queries]
        try:
            results = [self._read(query, future)[1] for query, future in zip(queries, flight)]
        finally:
            for future in flight:
                future.cancel()
        missing = [result for result in results if isinstance(result, Unanswered)]
        if missing:
            missing[0].results = results
            raise missing[0]
        return results

    def answers(self, queries: Iterator[PictureQuery], batch_size: int) -> Iterator[tuple]:
        """As the base says; ``batch_size`` requests are under way at a time."""
        flight: deque[tuple[PictureQuery, Future]] = deque()
        fault, more, in_vain = None, True, 0
        try:
            while True:
                while more and len(flight) < batch_size:
                    try:
                        query = next(queries)
                        flight.append((query, self._start(query)))
                    except StopIteration:
                        more = False
                    except ValueError as error:  # what was asked before it is answered first
                        fault, more = error, False
                if not flight:
                    break
                query, future = flight.popleft()
                sample, result = self._read(query, future)
                in_vain = in_vain + 1 if isinstance(result, Unanswered) else 0
                if in_vain == _IN_VAIN:
                    result.args, result.ends = (f'{result} ({in_vain} queries in a row)', ), True
                more = more and not (in_vain and result.ends)
                yield query, sample, result
        finally:
            for _, future in flight:
                future.cancel()
        if fault is not None:
            raise fault

    def visualize(self, inputs: Sequence[PictureQuery], preds: Sequence[dict], show: bool = False,
                  wait_time: float = 0) -> list[np.ndarray]:
        if show:
            raise ValueError('show needs the windows of MMEngine: pictures are written with '
                             'out_dir, or given with return_vis')
        return [self.painter.draw_query(query.picture, sample, draw_gt=False)
                for query, sample in zip(inputs, preds)]

    # --- parts ---------------------------------------------------------------------------------
    def _start(self, query: PictureQuery, on_text=None) -> 'Future[Reply]':
        if found := self._special.search(query.prompt.text or ''):
            refused: Future[Reply] = Future()
            refused.set_exception(EndpointError(
                f'the expression holds {found[0]!r}, which a server takes for a special token '
                'and not for text: write it otherwise', 'special token'))
            return refused
        return self._send(query.picture, self._question(query), query.prompt.task.kind, on_text)

    def _send(self, picture: np.ndarray, question: str, kind: str, on_text=None
              ) -> 'Future[Reply]':
        form = self.form
        if form.bounds is not None:
            picture = form.bounds.resized(picture)
        url = data_url(Image.fromarray(picture), 'PNG', compress_level=1)
        content = [dict(type='image_url', image_url=dict(url=url)),
                   dict(type='text', text=question)]
        messages = [dict(role='user', content=content)]
        if form.system_prompt is not None:
            messages.insert(0, dict(role='system', content=form.system_prompt))
        body = dict(model=self.served_model_name, messages=messages, temperature=0,
                    max_tokens=form.max_tokens, stream=True,
                    stream_options=dict(include_usage=True), logprobs=True,
                    repetition_penalty=1.0)
        body |= self._grammar_of(kind)
        if form.chat_template_kwargs:
            body['chat_template_kwargs'] = dict(form.chat_template_kwargs)
        return self.client.start(body, on_text)

    def _grammar_of(self, kind: str) -> dict:
        """What of a request holds its answer of that kind to the grammar."""
        return {} if self._held is None else self._held(self.codec.grammar.name, kind)

    def _question(self, query: PictureQuery) -> str:
        prompt = query.prompt
        return question_about(prompt.kind, prompt.value, query.picture.shape[:2],
                              self.codec.grammar, prompt.task.wanted)

    def _read(self, query: PictureQuery, future: 'Future[Reply]'
              ) -> tuple[dict, Segmentation | EndpointError]:
        """Sample and answer of a query, or the error in its place."""
        try:
            reply = future.result()
        except EndpointError as error:
            held = self._grammar_of(query.prompt.task.kind)
            key = next((key for key in held if key in error.said), None)
            if error.refused and key is not None:
                error.args = (f'the server does not take {key}, which holds the grammar: leave '
                              f'--constrain out, or give another ({error})', )
                error.ends = True
            return {}, error
        except CancelledError:
            return {}, EndpointError('the request was cancelled', 'cancelled')
        sample = dict(img_path=query.name, ori_shape=query.picture.shape[:2],
                      task=query.prompt.task.name, prompt=self._question(query),
                      codec=self.codec.spec)
        if query.prompt.kind == 'text':
            sample.update(text=query.prompt.text)
        self._unsure |= bool(reply.text) and not reply.token_logps
        answer = _answer_of(sample, reply)
        doubts = [*self.taught.doubts(query.picture, query.prompt),
                  *self._doubts(reply, answer)]
        if self.second_look is not None:
            answer, failed = self._looked(query, sample, answer)
            doubts += [*failed, *self.second_look.doubts(query.prompt.task)]
        sample.update(pred_answer=answer, pred_text=answer.text, pred_finished=answer.finished,
                      pred_num_tokens=answer.num_tokens,
                      pred_seconds=answer.seconds, pred_confidence=answer.confidence,
                      pred_looks=[one.to_dict() for one in answer.looks],
                      pred_instances=dict(masks=instance_masks(answer)))
        return sample, Segmentation.of(answer, query.name, query.prompt, query.index,
                                       tuple(doubts))

    def _looked(self, query: PictureQuery, sample: dict, answer: Answer
                ) -> tuple[Answer, list[str]]:
        """An answer with its second looks, and what kept some from being answered."""
        look, seen, failed = self.second_look, {}, []
        sample.update(pred_answer=answer, pred_text=answer.text)
        asked = [(ask, ask.sample(sample)) for ask in look.asks(sample)]
        flight = [self._send(cut_out(query.picture, ask.window, look.side), ask.prompt,
                             Task.find(crop['task']).kind) for ask, crop in asked]
        for (ask, crop), future in zip(asked, flight):
            try:
                seen[ask.instance] = ask.window, _answer_of(crop, future.result())
            except (EndpointError, CancelledError) as error:
                failed.append(f'a second look was not answered, and the first outline stays: '
                              f'{error or "the request was cancelled"}')
        judged = look.judged(answer, seen)
        seconds = answer.seconds + sum(second.seconds for _, second in seen.values())
        return replace(judged, seconds=seconds), failed[:1]

    def _doubts(self, reply: Reply, answer) -> Iterator[str]:
        """What of an answer speaks against the server."""
        grammar = self.codec.grammar
        if reply.broken is not None:
            yield f'the answer broke off, and is kept as far as it came: {reply.broken}'
        elif reply.finish_reason == 'length':
            yield (f'the server cut the answer after {reply.num_tokens} tokens (finish_reason '
                   'length): raise --max-tokens, or the length that the server takes (vLLM: '
                   '--max-model-len)')
        elif reply.finish_reason not in ('stop', 'ended'):
            yield f'the server ended the answer by finish_reason {shown(reply.finish_reason)}'
        if reply.text is None:
            yield ('the answer has no text: where the server takes it for a thought, serve the '
                   'model without a parser of thoughts')
            return
        beyond = outside_grammar(answer.text, grammar, answer.kind) if self.constrain else None
        cut = reply.finish_reason != 'stop' or reply.broken is not None
        if beyond is not None and not (cut and beyond == len(answer.text)):
            yield (f'the server did not hold its answer to the grammar ({grammar.name}) that it '
                   f'was given: it leaves it at character {beyond}. Another --constrain may do, '
                   f'or another version of the server')
        if '[' in answer.text and grammar.is_foreign(answer.text):
            yield (f'the answer is not written in {self.codec.spec}: the served model was taught '
                   'another grammar. Give --model FOLDER of the model that is served, or its '
                   '--codec')
        elif grammar.style == 'int' and answer.rings:
            self._farthest[0] += 1
            share = max(float(np.max(ring / answer.size[::-1])) for ring in answer.rings)
            self._farthest[1] = max(self._farthest[1], share)
            if self._farthest[0] >= _CORNER_AFTER and self._farthest[1] < _CORNER:
                yield (f'all {self._farthest[0]} outlines so far lie in the first tenth of their '
                       f'pictures: the served model may write another grammar than '
                       f'{grammar.name}, such as int{grammar.steps // 10}. Give --model FOLDER '
                       'of the model that is served, or its --codec')

    # --- the server ----------------------------------------------------------------------------
    def _check_tokenizer(self) -> re.Pattern:
        """What a text may not hold: special tokens. Refuses a server whose tokenizer is not that
        of the folder, where both are known."""
        file = None if self.form.folder is None else self.form.folder / 'tokenizer.json'
        if file is None or not file.is_file():
            return _MARK
        grammar = self.codec.grammar
        rings = [np.array([(1, 2), (grammar.steps // 2, 4), (grammar.steps // 3, grammar.steps)])]
        text = (question_about('box', (1, 2, 3, 4), (5, 6), grammar)
                + grammar.format_steps(rings))
        try:
            tokenizer = Tokenizer.from_file(str(file))
            own = tokenizer.encode(text, add_special_tokens=False).ids
        except Exception as error:  # the library raises nothing narrower
            raise ValueError(f'{file} cannot be read ({str(error)[:200]}): export the folder '
                             'again') from None
        theirs = self.client.tokenize(self.served_model_name, text)
        if theirs is not None and theirs != own:
            raise ValueError(
                f'{self.client.shown} splits text into other tokens than {self.form.folder}: '
                f'{self.served_model_name} there is another model. Serve that folder, or give '
                'the --model that is served')
        special = [token.content for token in tokenizer.get_added_tokens_decoder().values()
                   if token.special]
        return re.compile('|'.join([_MARK.pattern, *map(re.escape, special)]))

    def _engine(self, engine: str, entry: dict) -> Callable[[str, str], dict]:
        """What a request holds an answer to the grammar by, of ``ENGINES``."""
        if engine == 'auto':
            owner = str(entry.get('owned_by')).lower()
            if owner not in _OWNERS:
                raise ValueError(f'{self.client.shown} does not say what it is (owned_by is '
                                 f'{shown(entry.get("owned_by"))}): name it, constrain is one of '
                                 f'{list(ENGINES)}')
            engine = _OWNERS[owner]
        return ENGINES[engine]


def _answer_of(sample: dict, reply: Reply) -> Answer:
    """What a server wrote, as an answer to the query of a sample."""
    logps = reply.token_logps
    return read_answer(
        sample, reply.text or '', num_tokens=reply.num_tokens,
        finished=reply.broken is None and reply.finish_reason in ('stop', 'tool_calls'),
        seconds=reply.seconds,
        confidence=sum(math.exp(min(value, 0.0)) for value in logps) / len(logps)
        if logps else None)


def _told(on_text: Callable[[int, str], bool | None], number: int):
    return lambda text: on_text(number, text)
