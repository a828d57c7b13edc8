"""Plots of figures. Those that are typed here stand on a page, which says how they were measured:
acceleration, decoding and reinforcement_learning; retention; training."""
from look import BLUE, GREEN, GREY, INK, ORANGE, PINK, RED, SKY, chart
from matplotlib.lines import Line2D
from matplotlib.patches import Patch


def bars(ax, rows: list[tuple[str, float, str]], unit: str, form: str = '{:g}') -> None:
    """Horizontal bars, the first at the top: name, value, colour; the value at each one's end."""
    for k, (_, value, color) in enumerate(rows):
        ax.barh(k, value, color=color, height=.62)
        ax.annotate(f' {form.format(value)} {unit}', (value, k), va='center')
    ax.set(yticks=range(len(rows)), yticklabels=[name for name, *_ in rows], xticks=[],
           ylim=(len(rows) - .5, -.6), xlim=(0, 1.45 * max(value for _, value, _ in rows)))
    ax.spines[['bottom', 'left']].set_visible(False)
    ax.tick_params(left=False)


def acceleration():
    figure, (write, learn) = chart(430, 2, height_ratios=(4, 3.2))
    write.set_title('One pass of decoding, 32 rows, 7B, H200')
    bars(write, [('transformers, fastest', 22, GREY), ('recorded_passes', 10.4, BLUE),
                 ('and fused_*', 6.0, GREEN)], 'ms')
    learn.set_title('One step of RL, 7B, 128 prompts x 8')
    bars(learn, [('acceleration=[]', 26_100, GREY), ('packed_rows', 9_200, GREEN)], 'TFLOP',
         '{:,.0f}')
    return figure, ('A pass of decoding takes 22 milliseconds or more by transformers, 10.4 as a '
                    'recorded CUDA graph and 6.0 with fused kernels; a step of reinforcement '
                    'learning takes 26,100 TFLOP without measures and 9,200 with packed rows.')


def retention():
    rows = [('naming from a box', 79.5, 0, 72.5), ('naming from a point', 79, 0, 72),
            ('grounding, Acc@0.5', 94.5, 31, 92)]
    figure, ax = chart(430)
    for k, (_, *values) in enumerate(rows):
        for j, (value, color) in enumerate(zip(values, (GREY, RED, GREEN))):
            ax.barh(4.5 * k + j, value, color=color, height=.86)
            ax.annotate(f' {value:g}', (value, 4.5 * k + j), va='center')
        ax.annotate(rows[k][0], (0, 4.5 * k - 1), va='center', fontweight='bold')
    ax.set(yticks=[], ylim=(11.8, -1.8), xlim=(0, 108), xticks=[])
    ax.spines[['bottom', 'left']].set_visible(False)
    ax.legend(handles=[Patch(color=GREY, label='base, before SFT'),
                       Patch(color=RED, label='SFT on polygons alone'),
                       Patch(color=GREEN, label="half polygons, half the base's tasks")],
              loc='upper left', bbox_to_anchor=(0, -.01), borderaxespad=0)
    return figure, ('The base of nano answers 79 % of the naming and 95 % of the grounding '
                    'questions; after SFT on polygons alone it is 0 % and 31 %, with half of the '
                    "base's own tasks 72 % and 92 %.")


def training_stages():
    rows = [('pre-training alone', 43.1, 42.5, 43.8, None), ('SFT', 64.0, 63.5, 64.6, 65.5),
            ('SFT, RL', 65.1, 64.6, 65.8, 75.2), ('pre-training, SFT', 70.6, 69.9, 71.4, 70.1),
            ('pre-training, SFT, RL', 71.6, 70.8, 72.2, 78.5)]
    figure, ax = chart(330)
    for k, (_, mean, least, most, paper) in enumerate(rows):
        ax.plot([least, most], [k, k], color=BLUE, linewidth=7, solid_capstyle='round',
                alpha=.35)
        ax.plot(mean, k, 'o', color=BLUE, markersize=8,
                label='nano, RefShapes' if k == 1 else None)
        if paper:
            ax.plot(paper, k, 'D', color=ORANGE, markersize=8, zorder=1,
                    label='the paper, RefCOCO' if k == 1 else None)
    ax.set(yticks=range(5), yticklabels=[row[0] for row in rows], ylim=(4.5, -.5),
           xlabel='gIoU, %', xlim=(40, 82))
    ax.grid(axis='x')
    ax.legend(loc='lower left', handletextpad=.2, bbox_to_anchor=(-.02, -.03))
    return figure, ('The gIoU of nano rises with each stage, from 43.1 with pre-training alone to '
                    '71.6 with pre-training, SFT and reinforcement learning; the paper reports '
                    '65.5 to 78.5 on RefCOCO.')


#: parts of a plan -> their name and colour
PARTS = dict(weights=('weights', BLUE), gathered=('all weights, to generate', SKY),
             gradients=('gradients', GREEN), optimizer=('optimizer', ORANGE),
             activations=('activations', RED), logits=('logits', PINK),
             reserve=('reserve', '#c4cad3'))


def planning():
    """Plans by the planner, of pictures of 640 x 480."""
    from mmengine.config import Config
    from mmengine.registry import init_default_scope

    from simpleseg_mm.analysis import make_plan
    init_default_scope('simpleseg_mm')
    figure, ax = chart(430)
    spoken, used = [], {}
    rows = [('all weights, 1 GPU of 80 GB', 'qwen25vl_sft_refcoco', 1, 80),
            ('FSDP, 8 GPUs of 80 GB, each', 'qwen25vl_fsdp_sft_refcoco', 8, 80),
            ('LoRA, 1 GPU of 24 GB', 'qwen25vl_lora_sft_refcoco', 1, 24),
            ('QLoRA, 1 GPU of 24 GB', 'qwen25vl_qlora_sft_refcoco', 1, 24)]
    for k, (name, config, gpus, memory) in enumerate(rows):
        plan = make_plan(Config.fromfile(f'configs/simpleseg/{config}.py'), gpus, memory,
                         advise=False)
        parts = dict(plan['memory_gib'][plan['peak_phase']], reserve=plan['reserve_gib'])
        end = 0
        for part, (words, color) in PARTS.items():
            if size := parts.pop(part, 0):
                ax.barh(2 * k, size, left=end, color=color, height=.9)
                used[words] = color
                end += size
        assert not parts, f'parts of a plan without a colour: {parts}'
        ax.plot([memory, memory], [2 * k - .6, 2 * k + .6], color=INK, linewidth=2.5)
        ax.annotate(name, (0, 2 * k - .8), va='center', fontweight='bold')
        ax.annotate(f'{end:.1f} GiB', (79, 2 * k - .8), va='center', ha='right')
        spoken.append(f'{end:.1f} GiB of {memory} for {name.split(",")[0]}'
                      + f' on each of {gpus} GPUs' * (gpus > 1))
    ax.set(yticks=[], xticks=[], ylim=(6.7, -1.4), xlim=(0, 84))
    ax.spines[['bottom', 'left']].set_visible(False)
    ax.legend(handles=[*(Patch(color=color, label=name) for name, color in used.items()),
                       Line2D([], [], color=INK, linewidth=2.5, label='of the GPU')], ncols=2,
              loc='upper left', bbox_to_anchor=(0, -.01), borderaxespad=0, columnspacing=1)
    return figure, f'SFT of the 7B needs {", ".join(spoken)}, by the planner, part by part.'


PICTURES = dict(acceleration=acceleration, retention=retention, training_stages=training_stages,
                planning=planning)
