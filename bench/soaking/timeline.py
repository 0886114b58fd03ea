"""When workers are killed and the proxy is reloaded in a soak, and when its issuer is away: known before it begins."""

from dataclasses import dataclass
from random import Random
from typing import Literal

Event = Literal["reload", "kill", "issuer away", "issuer back"]

# Of the run; from there on the workers stay, so that their memory can be watched under the full load.
UPHEAVALS_UNTIL = 0.5
STEP_S = 60.0
STEPS_LEAST = 4  # of a short run
_AWAY_S = 5.0  # what tokens of 60 s bridge: they are renewed half a minute before their end


@dataclass(frozen=True, order=True)
class Due:
    at_s: float
    event: Event


def timeline(total_s: float, dice: Random) -> list[Due]:
    """A reload in each step of a minute, a killed worker in two of three, and an outage of the issuer."""
    until_s = UPHEAVALS_UNTIL * total_s
    step_s = min(STEP_S, until_s / STEPS_LEAST)
    due = []
    for step in range(int(until_s / step_s)):
        begin_s = step * step_s
        due.append(Due(begin_s + dice.uniform(0.3, 0.5) * step_s, "reload"))
        if step % 3 < 2:
            due.append(Due(begin_s + dice.uniform(0.6, 0.9) * step_s, "kill"))
        away_s = begin_s + dice.uniform(0, 0.8) * step_s
        due += [Due(away_s, "issuer away"), Due(away_s + min(_AWAY_S, 0.2 * step_s), "issuer back")]
    return sorted(due)
