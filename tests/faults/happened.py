"""What really went wrong in a run, counted where it was done, and whether that was enough."""

from __future__ import annotations

from dataclasses import dataclass

from faults.schedule import Form


@dataclass
class Happened:
    """What really went wrong, counted where it was done."""

    kills: int = 0
    ended_by_itself: int = 0
    terminations: int = 0
    stops: int = 0
    full_disks: int = 0
    refused_by_limit: int = 0
    full_tables: int = 0
    turned_away: int = 0
    """Submits for which slurmctld had no room meanwhile."""
    lost_answers: int = 0
    """Submits of which the service said that nobody answered: each may have happened, and did or did not."""
    happened_all_the_same: int = 0
    """Of these, those that Slurm had taken: the service found the job, at once or when a second copy was held."""

    def least(self, form: Form) -> dict[str, tuple[int, int]]:
        """What has to have gone wrong, or the run shows less than it says: each with how often it did, and should."""
        return {
            "kills": (self.kills, form.kills),
            "terminations": (self.terminations, form.terminations + 2),  # the full table's own are two
            "stops": (self.stops, form.stops),
            "full_disks": (self.full_disks, 1),
            "full_tables": (self.full_tables, 1),
            "refused_by_limit": (self.refused_by_limit, 1),
            "turned_away": (self.turned_away, 1),
            "happened_all_the_same": (self.happened_all_the_same, form.happened),
        }

    def findings(self, form: Form) -> list[str]:
        """What went wrong too seldom, in words."""
        return [
            f"{name}: {found}, and the run was to have {wanted} at least"
            for name, (found, wanted) in self.least(form).items()
            if found < wanted
        ]
