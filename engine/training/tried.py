"""What was tried while the bundled models were made, and dropped or mended.

Owns these words, which the report ends with. What must stay true: each is something that the project's history
holds, with what was measured then; nothing is told better than it was.
"""

from engine.training.cards import table

_ROWS = (
    (
        "basic_lstm: one layer of 32 units, no mirrored examples, multipliers from its own calibration part",
        "at 60 minutes its error was 1.0008 of that of no move and its Brier score 0.2504",
        "24 units, mirrored examples, an early end by watched days, multipliers from symbols left out",
    ),
    (
        "heads scaled by at most 1.2",
        "chances were too near to one half, which was seen on the last part",
        "scales of at most 3, drawn towards nought as far as chance explains their gain",
    ),
    (
        "the open minute always shown at its close",
        "vectors come at any second of a minute, and a model would have seen only its end",
        "one of the bar's four mids at random, with its share of the minute",
    ),
    (
        "standard errors that count one of h neighbouring minutes",
        "three files move together, so the true errors are larger",
        "blocks of time in which simultaneous symbols stay together",
    ),
    (
        "controls judged by the share of right signs on the last part",
        "shuffled labels had 0.478 right at 5 minutes: a network that says one side always is right as often as "
        "prices went there",
        "each row judged with its mirror image",
    ),
    (
        "calibration judged by the chance of a rise",
        "outside of its null band at 5 minutes, and for advanced_lstm at 15, since prices rose in those days; no "
        "answer contains that chance",
        "the published confidence is judged; the chance of a rise stands beside it",
    ),
    (
        "xgboost_direction calibrated on the calibration part alone",
        "one stretch of time has its own rate of touches",
        "on what folds of the training part say of each other, too",
    ),
    (
        "ensemble_meta with a fixed penalty of 0.003 on its weights, and a temperature after it",
        "nothing that the history holds",
        "a penalty that the end of the calibration part chooses, no temperature",
    ),
    (
        "pattern rules of a first kind, with loose tolerances",
        "they held often (wedge in 0.1624 of the minutes, double_top in 0.0840), and were shown on random walks about "
        "as often as on real minutes",
        "stricter rules with their sources",
    ),
    (
        "simple_pattern: 33 KiB with no layer between its convolutions and the outputs; two million walks, none with "
        "jumps, flicker or a memory",
        "outside of the band of all seven: triangle on the last part, pennant on hours. On the calibrating minutes its "
        "log loss was 0.663 of the rates'; as many walks of more laws gave 0.658, a layer of 32 units besides 0.581",
        "wider convolutions and 64 units: 0.516; then walks of many laws, four million of them. Chosen by other walks "
        "and the calibrating minutes, after the last part had been seen; pennants on hours are outside as before",
    ),
    (
        "both pattern models calibrated by the minutes alone",
        "80,000 minutes hold a few dozen separate triangles, so their rate is known to a fifth; calibrated by two of "
        "three groups of files, the third lost more than with the numbers that walks need",
        "the walks' own two numbers, corrected by the minutes as far as lost least on the group left out",
    ),
    (
        "bands of the pattern models with outcomes as long as those of simulated markets: pennants 12 minutes",
        "pennants of the calibrating minutes vary 1.4 times as much, double bottoms 0.8 times",
        "lengths between those of simulated markets and of the calibrating minutes, 15 to 30 minutes",
    ),
)

TRIED = (
    "Choices that were made after the last part had been seen are named as such here and on the cards.",
    table(("what", "what was found", "what took its place"), _ROWS),
)
