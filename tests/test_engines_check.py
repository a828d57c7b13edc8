"""An engine held to the training forward: each known fault is put into a stand-in, the model
itself behind an engine's interface, and is found by its name."""
import re
from dataclasses import replace

import pytest
import torch
from mmengine.registry import init_default_scope

from simpleseg_mm.datasets.refshapes import generate
from simpleseg_mm.engines.check import FAULTS, compare
from simpleseg_mm.engines.forwards import RIGHT, Case, Forwards, weights_of
from simpleseg_mm.engines.observed import Observed
from simpleseg_mm.registry import DATASETS, MODELS
from simpleseg_mm.structures import Generated

pytestmark = pytest.mark.usefixtures('one_thread')
LIMIT, REQUESTS = 60, 3
SYSTEM = 'You are a helpful assistant.'
CODEC = dict(preset='default', grammar='int100', tokens=40)


def build(pretrained='nano_sft', **mllm):
    init_default_scope('simpleseg_mm')
    return MODELS.build(dict(
        type='SimpleSeg', generation=dict(max_new_tokens=LIMIT), mllm=dict(dict(
            type='QwenVL', pretrained=f'simpleseg_mm://{pretrained}', acceleration=[]), **mllm)))


@pytest.fixture(scope='module')
def queries(tmp_path_factory):
    """Pictures of three sizes that must be resized, and a question about each."""
    folder = tmp_path_factory.mktemp('shapes')
    generate(folder, dict(train=1, val=1, test=REQUESTS), seed=3)
    dataset = DATASETS.build(dict(
        type='RefShapesDataset', data_root=str(folder), split='test', test_mode=True,
        query=dict(type='FormatQuery', codec=CODEC, tasks=dict(text2mask=1.0))))
    found = {}
    for item in dataset:
        found.setdefault(item['data_samples'].img_path, item)
    pairs = []
    for i, item in enumerate(list(found.values())[:REQUESTS]):
        size = (150 + 30 * i, 230 - 40 * i)
        image = torch.nn.functional.interpolate(item['inputs'][None].float(), size)[0]
        pairs.append((image.to(torch.uint8), item['data_samples'].prompt))
    assert len(pairs) == REQUESTS
    return pairs


@pytest.fixture(scope='module')
def model():
    return build(acceleration='auto')


class StandIn:
    """An engine in this process that decodes by transformers' own cache, one token after the
    other. Tests break what it consists of."""

    def __init__(self, model):
        self.model, self.mllm, self.encoder = model, model.mllm, model.mllm.encoder
        self.image_token = model.mllm.family.image_token_id
        self.banned, self.stops = model.mllm.writer.banned_tokens, model.mllm.writer.stop_tokens
        self.limit = LIMIT
        self.choose = lambda logits, ids: int(logits.argmax())
        self.sees = True

    def read(self, image, prompt):
        """Ids of a prompt, and the picture's tensors."""
        batch = self.encoder.encode([image], [[(prompt, None)]], for_generation=True)
        return batch['input_ids'][0].tolist(), {
            key: batch[key] for key in ('pixel_values', 'image_grid_thw')}

    def positions(self, ids, pictures, prompt):
        """(3, 1, T) of a row whose prompt has so many tokens."""
        ids = torch.tensor([ids])
        return self.mllm.hf.model.get_rope_index(
            ids, (ids == self.image_token).long(), pictures.get('image_grid_thw'))[0]

    @torch.no_grad()
    def write(self, image, prompt):
        (ids, pictures), model = self.read(image, prompt), self.mllm.hf.model.eval()
        dtype = next(model.parameters()).dtype
        tensors = {key: value.to(dtype) if key == 'pixel_values' else value
                   for key, value in pictures.items()}
        output = model(
            input_ids=torch.tensor([ids]), use_cache=True,
            mm_token_type_ids=(torch.tensor([ids]) == self.image_token).long(),
            position_ids=self.positions(ids, pictures, len(ids)),
            **(tensors if self.sees else {}))
        row, tokens, logps = list(ids), [], []
        while True:
            logits = self.mllm.logits(output.last_hidden_state[0, -1])
            allowed = logits.clone()
            allowed[self.banned] = -torch.inf
            tokens.append(self.choose(allowed, row))
            logps.append(float(logits.log_softmax(-1)[tokens[-1]]))
            row.append(tokens[-1])
            if tokens[-1] in self.stops or len(tokens) == self.limit:
                break
            output = model.language_model(
                inputs_embeds=self.mllm.hf.get_input_embeddings()(torch.tensor([tokens[-1:]])),
                position_ids=self.positions(row, pictures, len(ids))[..., -1:],
                past_key_values=output.past_key_values, use_cache=True)
        ended = tokens[-1] in self.stops
        return ids, self.answer(tokens, logps, ended)

    def answer(self, tokens, logps, ended):
        text = self.encoder.text_of(tokens[:len(tokens) - ended])
        return Generated(text, len(tokens), ended, tuple(tokens), tuple(logps))

    def cases(self, queries):
        found = []
        for i, (image, prompt) in enumerate(queries):
            ids, answer = self.write(image, prompt)
            found.append(Case(f'request {i}', image, prompt,
                              Observed(answer, tuple(ids), len(ids), limit=LIMIT)))
        return found


def told(cases, level):
    """What less talkative engines say: of the prompt its length alone, or nothing; of the answer
    no log-probabilities."""
    return [replace(case, observed=replace(
        case.observed,
        prompt_ids=case.observed.prompt_ids if level == 'all' else None,
        prompt_tokens=None if level == 'nothing' else case.observed.prompt_tokens,
        answer=replace(case.observed.answer, token_logps=())
        if level in ('no logps', 'nothing') else case.observed.answer)) for case in cases]


# --- faults that tests put in -------------------------------------------------------------------
def positions(edit):
    """edit: positions and tokens of the prompt -> positions that are taken."""
    def put_in(engine):
        right = engine.positions
        engine.positions = lambda ids, pictures, prompt: edit(right(ids, pictures, prompt), prompt)
    return put_in


def counted(rows, _=None):
    return torch.arange(rows.shape[-1]).expand(3, 1, -1)


def counted_on(rows, prompt):
    return torch.cat([rows[..., :prompt], counted(rows)[..., prompt:]], -1)


def reads(edit):
    """edit: ids of a prompt, its question, the encoder -> the ids that are read."""
    def put_in(engine):
        right = engine.read

        def read(image, prompt):
            ids, pictures = right(image, prompt)
            ids = edit(ids, prompt, engine.encoder)
            return ids, pictures if engine.image_token in ids else {}
        engine.read = read
    return put_in


def without(*names):
    def edit(ids, _, encoder):
        gone = encoder.tokenizer.convert_tokens_to_ids([f'<|{name}|>' for name in names])
        return [i for i in ids if i not in gone]
    return reads(edit)


def with_break(ids, _, encoder):
    end = encoder.tokenizer.convert_tokens_to_ids('<|vision_end|>')
    at = ids.index(end) + 1
    return ids[:at] + encoder.ids_of_text('\n') + ids[at:]


def picture_behind(ids, prompt, encoder):
    first, last = (ids.index(encoder.tokenizer.convert_tokens_to_ids(f'<|vision_{end}|>'))
                   for end in ('start', 'end'))
    rest = last + 1 + len(encoder.ids_of_text(prompt))
    return ids[:first] + ids[last + 1:rest] + ids[first:last + 1] + ids[rest:]


def blind(engine):
    engine.sees = False


def pictures(edit):
    """edit: a picture and the one before it -> the one that is read."""
    def put_in(engine):
        right, last = engine.read, []

        def read(image, prompt):
            last.append(image)
            return right(edit(image, last), prompt)
        engine.read = read
    return put_in


def processor(**settings):
    def put_in(engine):
        for name, value in settings.items():
            setattr(engine.mllm.family.image_processor, name, value)
    return put_in


def half_size(engine):
    size = engine.mllm.family.image_processor.size
    size['longest_edge'] = size['longest_edge'] // 2


def answers(edit):
    """edit: an answer -> what is given back instead."""
    def put_in(engine):
        write = engine.write

        def other(image, prompt):
            ids, answer = write(image, prompt)
            return ids, edit(answer, engine)
        engine.write = other
    return put_in


def with_a_picture_token(answer, engine):
    tokens, logps = list(answer.token_ids), list(answer.token_logps)
    tokens[5:5], logps[5:5] = [engine.image_token], [-0.7]
    return engine.answer(tokens, logps, answer.finished)


def endless(engine):
    engine.stops = []


def at_a_comma(engine):
    engine.stops = engine.encoder.ids_of_text(',')


def short(engine):
    engine.limit = 9


def sampled(engine):
    torch.manual_seed(0)
    engine.choose = lambda logits, _: int((logits / 2).softmax(-1).multinomial(1))


def penalised(engine):
    """As by the repetition_penalty of a folder's generation_config.json."""
    def choose(logits, ids):
        logits = logits.clone()
        seen = sorted(set(ids))
        logits[seen] = torch.where(logits[seen] > 0, logits[seen] / 1.5, logits[seen] * 1.5)
        return int(logits.argmax())
    engine.choose = choose


def in_bfloat16(engine):
    engine.model.to(torch.bfloat16)


def disturbed(engine):
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in engine.mllm.hf.model.language_model.parameters():
            parameter += torch.randn_like(parameter) * parameter.std() * 0.3


def stale(engine):
    engine.mllm.hf.load_state_dict(build('nano').mllm.hf.state_dict())


@pytest.mark.parametrize('name, detail, put_in', [
    ('mrope', 'counted in one dimension', positions(counted)),
    ('mrope', 'row of time', positions(lambda rows, _: rows[:1].expand(3, -1, -1))),
    ('mrope', 'row of width', positions(lambda rows, _: rows[2:].expand(3, -1, -1))),
    ('mrope', 'exchanged', positions(lambda rows, _: rows[[0, 2, 1]])),
    ('mrope', 'counted on', positions(counted_on)),
    ('no_picture', "none of the picture's", without('image_pad')),
    ('no_picture', "none of the picture's", without('image_pad', 'vision_start', 'vision_end')),
    ('no_picture', 'not put there', blind),
    ('no_picture', 'black', pictures(lambda image, _: image * 0)),
    ('wrong_picture', 'before', pictures(lambda image, last: last[max(len(last) - 2, 0)])),
    ('wrong_picture', 'first', pictures(lambda image, last: last[0])),
    ('resize', 'is read in', half_size),
    ('resize', 'nearest', processor(resample=0)),
    ('resize', 'bilinear', processor(resample=2)),
    ('pixels', 'red and blue', pictures(lambda image, _: image.flip(0))),
    ('pixels', '0.5', processor(image_mean=[0.5] * 3, image_std=[0.5] * 3)),
    ('template', r'\\n', reads(with_break)),
    ('template', 'from token', reads(picture_behind)),
    ('template', 'from token', reads(lambda ids, *_: ids[:-3])),
    ('banned_token', r'token 5 of the answer is .*image_pad', answers(with_a_picture_token)),
    ('end_tokens', 'no end token', at_a_comma),
    ('end_tokens', 'goes on after', endless),
    ('cut', '9 tokens, and 60', short),
    ('not_greedy', 'likelier by', sampled),
    ('not_greedy', 'likelier by', penalised),
    ('precision', 'bfloat16 instead of float32', in_bfloat16),
    ('stale_weights', 'the base', stale),
    ('unexplained', 'first at token', disturbed),
    ('not_numbers', 'nan for token 0', answers(lambda answer, _: replace(
        answer, token_logps=(float('nan'), *answer.token_logps[1:])))),
    ('tokenizer', 'spell', answers(lambda answer, _: replace(answer, text='a cat'))),
])
def test_each_fault_is_found_by_its_name(model, queries, name, detail, put_in):
    engine = StandIn(build())
    put_in(engine)
    found = compare(model, engine.cases(queries),
                    before=[('those of the base', lambda: build('nano').state_dict())])
    assert [fault.name for fault in found.faults][:1] == [name], found.to_dict()
    text = str(found.faults[0])
    assert re.search(detail, text), text
    what, remedy = FAULTS[name]
    assert what in text and text.endswith(remedy) and '\n' not in text
    assert found.to_dict()['fault'] == name


@pytest.mark.parametrize('level', ['number', 'no logps', 'nothing'])
@pytest.mark.parametrize('name, put_in', [
    ('mrope', positions(counted)),
    ('no_picture', without('image_pad')),
    ('no_picture', blind),
    ('resize', half_size),
    ('template', reads(with_break)),
    ('template', reads(picture_behind)),
    ('stale_weights', stale),
])
def test_an_engine_may_tell_less(model, queries, level, name, put_in):
    engine = StandIn(build())
    put_in(engine)
    found = compare(model, told(engine.cases(queries), level),
                    before=[('those of the base', lambda: build('nano').state_dict())])
    if (put_in, level) == (half_size, 'nothing'):  # its texts alone do not tell
        name = 'unexplained'
    assert [fault.name for fault in found.faults][:1] == [name], found.to_dict()


@pytest.mark.parametrize('level', ['all', 'number', 'no logps', 'nothing'])
def test_an_honest_engine_has_no_fault(model, queries, level):
    cases = told(StandIn(build()).cases(queries), level)
    ours = model.answer([case.image for case in cases], [case.prompt for case in cases])
    found = compare(model, cases, ours)
    assert found.faults == [] and found.explanations == [] and found.notes == []
    assert found.figures['mean_difference'] < 1e-4 and found.figures['texts_equal'] == 1
    assert found.to_dict()['fault'] is None
    assert found.figures['logps_told'] == (REQUESTS if level in ('all', 'number') else 0)
    table = found.table().splitlines()
    assert len(table) == REQUESTS + 1 and all(' / ' in line for line in table[1:])
    known = level in ('all', 'no logps')
    assert (' / ?' in table[1]) == (level == 'nothing') or not known


@pytest.mark.parametrize('system, asked', [(None, SYSTEM), (SYSTEM, None)])
@pytest.mark.parametrize('level', ['all', 'number'])
def test_another_system_prompt_is_another_template(queries, system, asked, level):
    cases = told(StandIn(build(system_prompt=asked)).cases(queries), level)
    found = compare(build(system_prompt=system), cases)
    assert [fault.name for fault in found.faults] == ['template']


def test_adapters_that_are_not_handed_over(queries):
    lora = dict(r=4, lora_alpha=8, target_modules=['q_proj', 'v_proj'])
    model = build(lora=lora)
    torch.manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if 'lora_' in name:
                parameter.normal_(std=0.3)
    found = compare(model, StandIn(build()).cases(queries))
    assert [fault.name for fault in found.faults] == ['stale_weights']
    assert 'without the LoRA adapters' in str(found.faults[0])
    assert compare(model, StandIn(model).cases(queries)).faults == []


def test_torchvision_rounds_otherwise_and_that_is_no_fault(model, queries):
    def resized(image, _):
        grid = model.mllm.encoder.encode([image], [[('a', None)]], for_generation=True)
        _, rows, columns = grid['image_grid_thw'][0].tolist()
        return torch.nn.functional.interpolate(
            image[None].float(), (rows * 14, columns * 14), mode='bicubic', antialias=True
        )[0].round().clamp(0, 255).to(torch.uint8)
    engine = StandIn(build())
    pictures(resized)(engine)
    found = compare(model, engine.cases(queries), tolerance=1e-5)
    assert found.faults == [] and 'torchvision' in found.notes[0]


def test_one_request_alone_is_judged(model, queries):
    """A fault of one request is found among others that have none."""
    engine = StandIn(build())
    pictures(lambda image, last: image * (len(last) != 2))(engine)
    found = compare(model, engine.cases(queries))
    assert [fault.name for fault in found.faults] == ['no_picture']
    assert '(1 of 3 requests)' in str(found.faults[0])


def test_the_tolerance_is_the_users(model, queries):
    engine = StandIn(build())
    in_bfloat16(engine)
    cases = engine.cases(queries)
    assert compare(model, cases, tolerance=0.1).faults == []
    with pytest.raises(ValueError, match='tolerance=-1: above 0'):
        compare(model, cases, tolerance=-1)


@pytest.mark.parametrize('answer, message', [
    (Generated('x', 1, True, (70000, )), 'token 70000, and the vocabulary here 1,024'),
    (Generated('x', 1, True, (5, ), (-0.1, -0.2)), '2 log-probabilities for 1 tokens'),
    (Generated('', 0, True), 'wrote nothing'),
])
def test_what_cannot_be_compared(model, queries, answer, message):
    image, prompt = queries[0]
    with pytest.raises(ValueError, match=message):
        compare(model, [Case('request 0', image, prompt, Observed(answer))])
    with pytest.raises(ValueError, match='no requests'):
        compare(model, [])


def test_a_forward_as_it_is_equals_training(model, queries):
    """What hypotheses change is the training forward, and nothing of the model stays changed."""
    forwards, before = Forwards(model), {
        name: value.clone() for name, value in model.state_dict().items()}
    cases = StandIn(build()).cases(queries)
    for case in cases:
        right = forwards.training(case)
        assert torch.allclose(forwards.score(case, RIGHT).logp_N, right, atol=2e-5)
        assert len(right) == len(case.observed.answer.token_ids)
    names = {h.fault for h in forwards.hypotheses(cases, [('old', build('nano').state_dict)])
             if forwards.score(cases[0], h) is not None}
    assert names == {'mrope', 'no_picture', 'wrong_picture', 'resize', 'pixels', 'template',
                     'stale_weights', 'precision'} <= set(FAULTS)
    for name, value in model.state_dict().items():
        assert value.dtype == before[name].dtype and torch.equal(value, before[name]), name
    assert torch.allclose(forwards.training(cases[0]),
                          forwards.score(cases[0], RIGHT).logp_N, atol=2e-5)


def test_tied_weights_come_back(model):
    other = build('nano').state_dict()
    own = model.mllm.hf.lm_head.weight.clone()
    with pytest.raises(KeyError), weights_of(model, lambda: other):
        assert torch.equal(model.mllm.hf.lm_head.weight, other['mllm.hf.lm_head.weight'])
        raise KeyError
    assert torch.equal(model.mllm.hf.lm_head.weight, own)
    assert torch.equal(model.mllm.hf.get_input_embeddings().weight, own)
