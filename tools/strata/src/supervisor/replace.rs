//! Taking the place of a supervisor that runs or hangs, or is of an older build: once it is sure
//! that what it leaves can be adopted it is killed, and the rest is adoption.

use super::adopt::fitting;
use super::keeper::Keeper;
use super::spawn::Child;
use super::{Options, setup};
use anyhow::{Context, bail};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// Longest time from SIGKILL to the end of a process.
const DYING: Duration = Duration::from_secs(5);

/// Ends the supervisor of that name, if one lives. The daemons and the keeper run on.
///
/// # Errors
/// When what it leaves could not be adopted: nothing is changed then.
pub(super) fn end_predecessor(options: &Options) -> anyhow::Result<()> {
    let Some(predecessor) = setup::holder(&options.rundir) else {
        return Ok(());
    };
    let name = options.rundir.name();
    let unchanged = || format!("the supervisor of `{name}` is not replaced");
    let Some(plan) = Keeper::plan(&options.rundir).with_context(unchanged)? else {
        bail!("the keeper of `{name}` is dead: without it nobody could adopt what runs");
    };
    fitting(options, &plan).with_context(unchanged)?;
    let child = Child::by_id(predecessor.pid)?;
    // Asked with the process held: its number is nobody else's from here on.
    if predecessor.lives() {
        child.kill();
    }
    let begin = Instant::now();
    while child.reap().is_none() {
        if begin.elapsed() > DYING {
            bail!("supervisor {} of `{name}` does not die", predecessor.pid);
        }
        sleep(Duration::from_millis(1));
    }
    tracing::info!("supervisor {} ended, to be replaced", predecessor.pid);
    Ok(())
}
