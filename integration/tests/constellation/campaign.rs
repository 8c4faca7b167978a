//! The campaign in its shortest form: what the crash points and the named faults leave out.

use anyhow::{Result, ensure};
use integration::Trials;
use integration::campaign::{Peer, Plan, run};
use std::sync::Arc;

pub(crate) fn add(trials: &mut Trials) {
    trials.add("layers_die_with_another_constellation_as_peer", || {
        campaign("SIGKILL of netdevd", Some(Peer::Constellation))?;
        campaign("SIGKILL of tcpd", Some(Peer::Constellation))
    });
    trials.add("everything_dies_with_another_constellation_as_peer", || {
        campaign("SIGKILL", Some(Peer::Constellation))
    });
    trials.add(
        "what_is_connected_goes_on_while_the_supervisor_hangs",
        || campaign("hang (SIGSTOP) of supervisor", Some(Peer::Kernel)),
    );
    trials.add("a_random_word_costs_one_connection_at_most", || {
        campaign("random word", Some(Peer::Kernel))
    });
}

fn campaign(only: &str, peer: Option<Peer>) -> Result<()> {
    let plan = Plan {
        seed: 7,
        kills: 1,
        idle: 20,
        peer,
        congestion: "of the machine".to_owned(),
        part: (0, 1),
        only: only.to_owned(),
        until: None,
        stop: Arc::default(),
    };
    let report = run(&plan, |_, _, _| {})?;
    println!("{}", report.markdown());
    ensure!(report.is_good(), "{}", report.failures().join("\n"));
    ensure!(report.count() > 0, "nothing was done");
    Ok(())
}
