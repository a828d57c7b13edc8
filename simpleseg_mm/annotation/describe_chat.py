"""Descriptions by a chat VLM of transformers in this process.

The process that runs the stage loads torch and transformers; others do without them.
"""
from PIL import Image

from simpleseg_mm.files import from_folder
from simpleseg_mm.registry import STAGES

from .describe import Describe
from .grounding import pick_device


@STAGES.register_module()
class DescribeByChat(Describe):
    """Asks any image-text-to-text model whose processor has a chat template.

    Args:
        pretrained: local folder or hub id, such as 'Qwen/Qwen2.5-VL-7B-Instruct'. Some
            processors, Qwen's among them, need torchvision.
        max_new_tokens: of an answer. Greedy.
        max_requests: objects in one call of ``generate``.
        dtype, device: of the weights.
        **kwargs: see :class:`Describe`.
    """

    def __init__(self, pretrained: str, max_new_tokens: int = 96, max_requests: int = 8,
                 dtype: str = 'bfloat16', device: str | None = None, batch_size: int = 4,
                 **kwargs) -> None:
        super().__init__(batch_size=batch_size, **kwargs)
        import torch
        from transformers import AutoModelForImageTextToText, AutoProcessor
        self.processor = from_folder(AutoProcessor.from_pretrained, pretrained)
        if not getattr(self.processor, 'chat_template', None):
            raise ValueError(f'the processor of {pretrained} has no chat template; take a chat '
                             'model, or add its chat_template.jinja')
        self.processor.tokenizer.padding_side = 'left'
        if self.processor.tokenizer.pad_token is None:
            self.processor.tokenizer.pad_token = self.processor.tokenizer.eos_token
        self.model = from_folder(
            AutoModelForImageTextToText.from_pretrained, pretrained,
            dtype=getattr(torch, dtype)).eval().to(pick_device(device))
        self.max_new_tokens, self.max_requests = max_new_tokens, max_requests

    def ask(self, requests: list[tuple[Image.Image, str]]) -> list[str]:
        import torch
        answers: list[str] = []
        for start in range(0, len(requests), self.max_requests):
            pictures, questions = zip(*requests[start:start + self.max_requests])
            texts = [self.processor.apply_chat_template(
                [dict(role='user', content=[dict(type='image'), dict(type='text', text=text)])],
                add_generation_prompt=True, tokenize=False) for text in questions]
            inputs = self.processor(
                images=[[picture] for picture in pictures], text=texts, return_tensors='pt',
                padding=True).to(self.model.device, self.model.dtype)
            with torch.inference_mode():
                tokens = self.model.generate(**inputs, do_sample=False,
                                             max_new_tokens=self.max_new_tokens)
            answers += self.processor.batch_decode(tokens[:, inputs['input_ids'].shape[1]:],
                                                   skip_special_tokens=True)
        return answers
