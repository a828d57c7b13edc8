# Every kind of question recombined from weak labels: points and boxes of masks, descriptions or
# categories as text. The shares are our choice.
weak_tasks = dict(
    text2mask=0.3, point2mask=0.15, box2mask=0.15, text2box=0.1, text2point=0.05, point2box=0.05,
    box2text=0.1, point2text=0.1)
