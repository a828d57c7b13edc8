"""Engines that read grammars, each as a function of a text: whether the grammar takes it.

A package that is absent skips the test. llama.cpp needs a vocabulary to read with: a file of one,
without weights, is written here.
"""
import ctypes
import re
import struct
import tempfile
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import pytest

Reader = Callable[[str], bool]


def re_module(form: str, grammar: str) -> Reader:
    pattern = re.compile(grammar)
    return lambda text: pattern.fullmatch(text) is not None


def lark(form: str, grammar: str) -> Reader:
    package = pytest.importorskip('lark')
    parser = package.Lark(grammar, parser='lalr')

    def takes(text: str) -> bool:
        try:
            parser.parse(text)
        except package.exceptions.LarkError:
            return False
        return True
    return takes


def xgrammar(form: str, grammar: str) -> Reader:
    package = pytest.importorskip('xgrammar')
    read = {'regex': package.Grammar.from_regex, 'ebnf': package.Grammar.from_ebnf,
            'gbnf': package.Grammar.from_ebnf, 'lark': package.Grammar.from_lark,
            'json-schema': package.Grammar.from_json_schema}
    compiler = package.GrammarCompiler(package.TokenizerInfo([]), cache_enabled=False)
    matcher = package.GrammarMatcher(compiler.compile_grammar(read[form](grammar)),
                                     terminate_without_stop_token=True)

    def takes(text: str) -> bool:
        matcher.reset()
        return matcher.accept_string(text) and matcher.is_terminated()
    return takes


def outlines_core(form: str, grammar: str) -> Reader:
    package = pytest.importorskip('outlines_core')
    vocabulary = package.Vocabulary(0, {bytes([byte]): [byte] for byte in range(1, 256)})
    index = package.Index(grammar, vocabulary)

    def takes(text: str) -> bool:
        state = index.get_initial_state()
        for byte in text.encode():
            state = index.get_next_state(state, byte)
            if state is None:
                return False
        return index.is_final_state(state)
    return takes


def llguidance(form: str, grammar: str) -> Reader:
    matcher, tokenizer = llguidance_matcher(form, grammar)

    def takes(text: str) -> bool:
        tokens = [*text.encode(), tokenizer.eos_token]
        return matcher.validate_tokens(tokens) == len(tokens)
    return takes


def llguidance_matcher(form: str, grammar: str):
    """A matcher over bytes, and its tokenizer."""
    package = pytest.importorskip('llguidance')
    kind = package.LLMatcher
    read = {'regex': kind.grammar_from_regex, 'lark': kind.grammar_from_lark,
            'json-schema': kind.grammar_from_json_schema}
    tokenizer = package.LLTokenizer('byte')
    matcher = kind(tokenizer, read[form](grammar))
    assert not matcher.is_error(), matcher.get_error()
    return matcher, tokenizer


def llama_cpp(form: str, grammar: str) -> Reader:
    package, vocabulary = _llama_vocabulary()
    sampler = package.llama_sampler_init_grammar(vocabulary, grammar.encode(), b'root')
    assert sampler, 'llama.cpp does not read the grammar'
    token = package.llama_token_data()
    candidates = package.llama_token_data_array(data=ctypes.pointer(token), size=1, selected=-1,
                                                sorted=False)

    def takes(text: str) -> bool:
        package.llama_sampler_reset(sampler)
        for number in [*(FIRST_BYTE + byte for byte in text.encode()), END]:
            token.id, token.logit, token.p = number, 0.0, 0.0
            package.llama_sampler_apply(sampler, ctypes.byref(candidates))
            if token.logit < 0:
                return False
            if number != END:
                package.llama_sampler_accept(sampler, number)
        return True
    return takes


END, FIRST_BYTE = 2, 3


@lru_cache(maxsize=None)
def _llama_vocabulary():
    package = pytest.importorskip('llama_cpp')
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / 'bytes.gguf'
        path.write_bytes(byte_vocabulary())
        options = package.llama_model_default_params()
        options.vocab_only = True
        model = package.llama_model_load_from_file(str(path).encode(), options)
        assert model
    return package, package.llama_model_get_vocab(model)


def byte_vocabulary() -> bytes:
    """A GGUF file of a vocabulary: three special tokens and one for each byte."""
    def text(value: str) -> bytes:
        return struct.pack('<Q', len(value.encode())) + value.encode()

    def array(kind: int, items: list[bytes]) -> bytes:
        return struct.pack('<IQ', kind, len(items)) + b''.join(items)

    tokens = ['<unk>', '<s>', '</s>', *(f'<0x{byte:02X}>' for byte in range(256))]
    types = [2, 3, 3, *[6] * 256]  # unknown, control, byte
    fields = {'general.architecture': (8, text('llama')),
              'tokenizer.ggml.model': (8, text('llama')),
              'tokenizer.ggml.tokens': (9, array(8, list(map(text, tokens)))),
              'tokenizer.ggml.scores': (9, array(6, [struct.pack('<f', 0)] * len(tokens))),
              'tokenizer.ggml.token_type': (9, array(5, [struct.pack('<i', t) for t in types])),
              'tokenizer.ggml.unknown_token_id': (4, struct.pack('<I', 0)),
              'tokenizer.ggml.bos_token_id': (4, struct.pack('<I', 1)),
              'tokenizer.ggml.eos_token_id': (4, struct.pack('<I', END))}
    return b''.join([b'GGUF', struct.pack('<IQQ', 3, 0, len(fields)),
                     *(text(key) + struct.pack('<I', kind) + value
                       for key, (kind, value) in fields.items())])


#: (engine, form): who reads what
READERS = [(re_module, 'regex'), (lark, 'lark'), (llama_cpp, 'gbnf'), (outlines_core, 'regex'),
           *((xgrammar, form) for form in ('regex', 'ebnf', 'gbnf', 'lark', 'json-schema')),
           *((llguidance, form) for form in ('regex', 'lark', 'json-schema'))]
