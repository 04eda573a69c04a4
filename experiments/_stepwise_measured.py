"""What a run of the study of stepwise learning has measured, held against the paper's claims."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments._stepwise_config import Config, effective_time, has_control, is_linear
from rlkit.metrics import dynamics
from rlkit.theory import stepwise
from rlkit.train.records import Records, read_arrays


@dataclasses.dataclass(frozen=True)
class Measured:
    """A run as the summary and the figure see it: curves with the time in front, then seeds."""

    config: Config
    t: np.ndarray
    loss: np.ndarray
    eigenvalues: np.ndarray
    rankme: np.ndarray
    accuracy: np.ndarray | None
    theory: dict[str, np.ndarray]

    @classmethod
    def of(cls, records: Records) -> "Measured":
        """Reads a run back from its folder."""
        config = Config(**records.config)
        theory = records.folder / "theory.npz"
        labelled = "accuracy" in records.lines[0]
        return cls(
            config,
            effective_time(config, records.steps),
            records.scalar("loss"),
            records.array("eigenvalues"),
            records.scalar("rankme"),
            records.scalar("accuracy") if labelled else None,
            read_arrays(theory) if theory.exists() else {},
        )

    def half_times(self) -> np.ndarray:
        """Time of half height of each mode, [s d]; NaN where it is not reached."""
        return np.array(_half_times(self.t, self.eigenvalues / self.limits()))

    def limits(self) -> np.ndarray:
        """What each eigenvalue ends at by theory, [d]."""
        d = self.config.dim
        if self.config.loss == "spectral":
            gamma_j, sigma_j = self.theory["gamma_j"][:d], self.theory["sigma_j"][:d]
            return np.square(gamma_j / sigma_j)
        return np.ones(d)

    def has_prediction(self) -> bool:
        """Whether the closed form's assumptions hold for this run."""
        if not self.theory:
            return False
        return self.config.loss == "barlow_twins" or self.theory["commutator"] < 1e-6

    def predicted(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Half-height times [s d], eigenvalues [T s d] and loss [T s], each seed from its W(0)."""
        d = self.config.dim
        law = _barlow_twins_law if self.config.loss == "barlow_twins" else _spectral_law
        spectra = [self.theory[k][:d] for k in ("gamma_j", "sigma_j")]
        times, curves, losses = map(np.asarray, law(self.t, *spectra, self.theory["s0"]))
        # Measured eigenvalues come in order of size, so these do too.
        return np.sort(times, axis=-1), np.sort(curves, axis=-1)[..., ::-1], losses


@jax.jit
@functools.partial(jax.vmap, in_axes=(None, None, None, 0), out_axes=(0, 1, 1))
def _barlow_twins_law(t, gamma_j, sigma_j, s0):
    return (
        stepwise.half_times(gamma_j, s0),
        stepwise.eigenvalues(t, gamma_j, s0),
        stepwise.loss(t, gamma_j, s0),
    )


@jax.jit
@functools.partial(jax.vmap, in_axes=(None, None, None, 0), out_axes=(0, 1, 1))
def _spectral_law(t, gamma_j, sigma_j, s0):
    squared = stepwise.spectral_trajectory(t, gamma_j, sigma_j, s0) ** 2
    terms = (sigma_j[None, :] * squared) ** 2 - 2 * gamma_j[None, :] * squared
    times = stepwise.spectral_half_times(gamma_j, sigma_j, s0)
    return times, gamma_j[None, :] * squared, jnp.sum(terms, axis=-1)


@jax.jit
def _half_times(t, curves):
    return jax.vmap(lambda one: dynamics.crossing_times(t, one, 0.5), 1)(curves)


def summarize(records: Records) -> dict[str, Any]:
    """Measured, predicted, and what the paper's claims come to."""
    run = Measured.of(records)
    with jax.enable_x64(is_linear(run.config)):
        summary: dict[str, Any] = {
            "final_loss": run.loss[-1],
            "final_rankme": run.rankme[-1],
            "final_accuracy": None if run.accuracy is None else run.accuracy[-1],
        }
        if run.theory:
            for name in ("distance", "overlap", "procrustes"):
                summary[f"final_{name}"] = records.scalar(name)[-1]
        if run.has_prediction():
            summary |= _summarize_theory(run)
        if not is_linear(run.config):
            summary["distinct_steps"], summary["learned_modes"] = _count_steps(run)
        if has_control(run.config):
            control = Measured.of(Records(records.folder / "control"))
            steps, learned = _count_steps(control)
            summary["control"] = {"distinct_steps": steps, "learned_modes": learned}
    return summary


def _summarize_theory(run: Measured) -> dict[str, Any]:
    d, gamma_j = run.config.dim, run.theory["gamma_j"]
    predicted, curves, losses = run.predicted()
    measured = run.half_times()
    error = np.abs(measured / predicted - 1)
    above = np.concatenate([[np.inf], gamma_j[: d - 1] / gamma_j[1:d]])
    below = gamma_j[:d] / gamma_j[1 : d + 1] if d < len(gamma_j) else above[1:]
    modes = [
        {
            "mode": j + 1,
            "gamma": gamma_j[j],
            "gap": min(above[j], below[j]),
            "predicted": predicted[:, j],
            "measured": measured[:, j],
            "relative_error": error[:, j],
        }
        for j in range(d)
    ]
    with np.errstate(divide="ignore", invalid="ignore"):
        trajectory_error = np.abs(run.eigenvalues / curves - 1)[1:]
    summary = {
        "modes": modes,
        "loss_error": np.max(np.abs(run.loss - losses)),
        "trajectory_error": np.max(trajectory_error),
        "commutator": run.theory["commutator"],
    }
    if run.config.loss == "barlow_twins":
        summary["plateaus"] = _plateaus(run, losses, predicted)
        summary["leakage_exponent"] = float(stepwise.leakage_exponent(jnp.array(gamma_j), d))
    return summary


def _plateaus(run: Measured, losses: np.ndarray, predicted: np.ndarray) -> list[dict[str, Any]]:
    """The loss half-way between two steps that are far enough apart to leave a plateau.

    Far enough: there the closed form itself is within 0.01 of the integer.
    """
    d, found = run.config.dim, []
    for seed in range(predicted.shape[0]):
        for k in range(1, d):
            middle = (predicted[seed, k - 1] + predicted[seed, k]) / 2
            at = [np.interp(middle, run.t, one[:, seed]) for one in (losses, run.loss)]
            if abs(at[0] - (d - k)) < 0.01:
                found.append({"seed": seed, "loss": at[1], "integer": d - k})
    return found


# What a distinct step is, stated once: a mode rises from 10 to 90 percent of its plateau, and two
# rises are steps apart if the rest between them is at least as long as each of them.
RULE = {"low": 0.1, "high": 0.9, "tread": 1.0}


def merged(distinct: int, learned: int) -> bool:
    """Whether steps merged: they are at most three quarters as many as the modes learned."""
    return 4 * distinct <= 3 * learned


@jax.jit
def rises(t, curves):
    """Of curves [T k]: how many distinct steps, which of them each is part of, its rise [k 2]."""
    count, groups = dynamics.distinct_steps(t, curves, **RULE)
    return count, groups, dynamics.rise_intervals(t, curves, low=RULE["low"], high=RULE["high"])


def _count_steps(run: Measured) -> tuple[list[int], list[int]]:
    """Distinct steps, and modes that took part in one, for each seed."""
    steps, learned = [], []
    for seed in range(run.eigenvalues.shape[1]):
        count, groups, _ = rises(run.t, run.eigenvalues[:, seed])
        steps.append(int(count))
        learned.append(int(np.sum(np.asarray(groups) >= 0)))
    return steps, learned


def claims(summary: dict[str, Any], config: Config) -> list[tuple[str, str, str]]:
    """The paper's claims at our scale: what is claimed, what was found, whether it held."""
    rows = []

    def claim(text, found, held):
        rows.append((text, found, "yes" if held else "NO"))

    if "modes" in summary:
        apart = [m for m in summary["modes"] if m["gap"] >= 1.3]
        errors = np.array([m["relative_error"] for m in apart], dtype=float)
        missed = int(np.sum(np.isnan(errors).any(axis=-1))) if apart else 0
        found = (
            f"at most {np.nanmax(errors, initial=0):.2%} off, {len(apart)} of {config.dim} modes"
        )
        if missed:
            found += f", {missed} of them not reached in this run"
        claim(
            "step times as predicted, within 3 % (modes with gap >= 1.3)",
            found if apart else "no mode has such a gap",
            bool(apart) and not missed and np.max(errors) <= 0.03,
        )
        if config.init == "aligned":
            worst = summary["trajectory_error"]
            claim(
                "aligned start: eigenvalues follow s_j(t), within 0.1 %",
                f"{worst:.2e}",
                worst < 1e-3,
            )
        if plateaus := summary.get("plateaus"):
            worst = max(abs(p["loss"] - p["integer"]) for p in plateaus)
            claim(
                "the loss rests at integers, within 0.02",
                f"{worst:.4f} off, {len(plateaus)} plateaus over all seeds",
                worst <= 0.02,
            )
        # With a smaller gap behind the last mode, no practical start is small enough for this one.
        exponent = summary.get("leakage_exponent", 1.0)  # null where gamma_d <= 0
        if exponent is not None and exponent >= 1 - 1 / 1.3:
            least = np.min(summary["final_overlap"])
            claim(
                "ends in the span of the top modes (overlap > 0.99)", f"{least:.5f}", least > 0.99
            )
    if "distinct_steps" in summary and config.dim >= 3:
        small, learned = summary["distinct_steps"], summary["learned_modes"]
        claim(
            "small start: at least 3 distinct steps in every seed",
            f"{small} of {learned} modes",
            min(small) >= 3,
        )
        if "control" in summary:
            usual, learned = (summary["control"][k] for k in ("distinct_steps", "learned_modes"))
            fewer = all(u < s for u, s in zip(usual, small, strict=True))
            claim(
                "usual start: steps merge in every seed (at most 3/4 of the learned modes keep one "
                "of their own, and fewer than from the small start)",
                f"{usual} of {learned} modes",
                fewer and all(map(merged, usual, learned)),
            )
    return rows
