//! Sharing: one of ours and one of the kernel's send through one bottleneck at the same time.

use super::cells::{Cell, Way};
use super::table::Spread;
use super::transfer::{self, Outcome, Plan};
use super::world::{Host, World};
use anyhow::{Context, Result, anyhow};
use std::thread;
use std::time::Duration;

/// Bottlenecks that are measured at the same time.
const AT_ONCE: usize = 3;
/// Between two looks at the senders.
const SAMPLING: Duration = Duration::from_millis(100);

/// What was measured of a bottleneck: the stack's and the kernel's, for each repetition.
#[derive(Debug)]
pub(super) struct Shares {
    pub(super) cell: Cell,
    pub(super) pairs: Vec<[Outcome; 2]>,
}

/// Jain's index of two shares: 1 when they are equal, 0.5 when one has all (Jain, Chiu and Hawe
/// 1984).
pub(super) fn jain(a: f64, b: f64) -> f64 {
    (a + b) * (a + b) / (2.0 * (a * a + b * b)).max(1e-9)
}

impl Shares {
    pub(super) fn jain(&self) -> Spread {
        Spread::of(self.pairs.iter().map(|[s, k]| jain(s.mbps, k.mbps)))
    }

    /// Of the second half of the time.
    pub(super) fn late_jain(&self) -> Spread {
        let late = |[s, k]: &[Outcome; 2]| jain(s.late_mbps, k.late_mbps);
        Spread::of(self.pairs.iter().map(late))
    }

    pub(super) fn mbps(&self, which: usize) -> Spread {
        Spread::of(
            self.pairs
                .iter()
                .filter_map(|p| p.get(which))
                .map(|o| o.mbps),
        )
    }

    /// For the terminal.
    pub(super) fn line(&self) -> String {
        let (jain, late) = (self.jain(), self.late_jain());
        format!(
            "{:45} {:7.2} {:7.2}  Jain {:.2} (from {:.2}), second half {:.2} (from {:.2})",
            self.cell.to_string(),
            self.mbps(0).median,
            self.mbps(1).median,
            jain.median,
            jain.min,
            late.median,
            late.min
        )
    }
}

/// Measures every bottleneck, `repetitions` times.
pub(super) fn measure(
    world: &World,
    cells: &[Cell],
    repetitions: u64,
    time: Duration,
    mut told: impl FnMut(&Shares),
) -> Result<Vec<Shares>> {
    let mut all = Vec::new();
    for some in cells.chunks(AT_ONCE) {
        let mut shares: Vec<Shares> = some
            .iter()
            .map(|cell| Shares {
                cell: *cell,
                pairs: Vec::new(),
            })
            .collect();
        for seed in 1..=repetitions {
            let done = thread::scope(|scope| {
                let jobs: Vec<_> = some
                    .iter()
                    .map(|cell| scope.spawn(move || share(world, cell, seed, time)))
                    .collect();
                let ended = jobs.into_iter().map(|job| {
                    let result = job.join().map_err(|_| anyhow!("a transfer panicked"));
                    result.and_then(|pair| pair)
                });
                ended.collect::<Result<Vec<_>>>()
            })?;
            for (share, pair) in shares.iter_mut().zip(done) {
                share.pairs.push(pair);
            }
        }
        shares.iter().for_each(&mut told);
        all.extend(shares);
    }
    Ok(all)
}

/// Both through one bottleneck.
fn share(world: &World, cell: &Cell, seed: u64, time: Duration) -> Result<[Outcome; 2]> {
    let path = transfer::path(world, cell, Way::Sends, seed);
    let plan = |host: Host| Plan {
        host,
        way: Way::Sends,
        cell: *cell,
        path,
        seed,
        time,
        sampling: Some(SAMPLING),
        heals: true,
    };
    thread::scope(|scope| {
        // Who is first has an advantage for a while: they take turns.
        let (first, second) = if seed.is_multiple_of(2) {
            (Host::Stack, Host::Kernel)
        } else {
            (Host::Kernel, Host::Stack)
        };
        let job = scope.spawn(move || transfer::run(world, &plan(first)));
        let here = transfer::run(world, &plan(second)).context("the later one")?;
        let there = job.join().map_err(|_| anyhow!("a transfer panicked"))??;
        Ok(match first {
            Host::Stack => [there, here],
            Host::Kernel => [here, there],
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jains_index() {
        assert!((jain(5.0, 5.0) - 1.0).abs() < 1e-9);
        assert!((jain(5.0, 0.0) - 0.5).abs() < 1e-9);
        assert!((jain(2.0, 1.0) - 0.9).abs() < 1e-9);
    }
}
