# The true shape of Qwen2.5-VL-3B with random weights and nano's tokenizer.
_base_ = './qwen25vl_7b_random.py'
model = dict(
    mllm=dict(
        config=dict(
            tie_word_embeddings=True,
            text_config=dict(
                vocab_size=151936,
                hidden_size=2048,
                intermediate_size=11008,
                num_hidden_layers=36,
                num_attention_heads=16,
                num_key_value_heads=2,
                tie_word_embeddings=True),
            vision_config=dict(out_hidden_size=2048))))
