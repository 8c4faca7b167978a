//! `strata upgrade`: another build for a running layer. Whether it knows the layouts of the
//! memory it is to take over is asked of the build itself first, while nothing is touched.

use super::ask;
use crate::admin::{Answer, Request};
use crate::cli::Cli;
use anyhow::{Context, bail};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

/// `strata upgrade LAYER --exe FILE`.
pub(super) fn upgrade(cli: &Cli, layer: &str, exe: &Path) -> anyhow::Result<()> {
    let exe = fs::canonicalize(exe).with_context(|| format!("cannot find {}", exe.display()))?;
    let layer = layer.to_owned();
    let request = Request::Layouts {
        layer: layer.clone(),
    };
    let Answer::Table { rows, .. } = ask(cli, &request)? else {
        bail!("the supervisor answered something else");
    };
    let theirs = layouts_of(&exe)?;
    for row in &rows {
        let [name, role, ours] = row.as_slice() else {
            continue;
        };
        match theirs.get(role) {
            Some(layout) if layout == ours => {}
            Some(layout) => bail!(
                "{} cannot take over {name}: it reads layout {layout}, and what runs has {ours}; \
                 nothing was changed",
                exe.display()
            ),
            None => bail!("{} knows no {role}; nothing was changed", exe.display()),
        }
    }
    let request = Request::Upgrade {
        layer,
        executable: exe,
    };
    if let Answer::Done(text) = ask(cli, &request)? {
        println!("{text}");
    }
    Ok(())
}

/// The layouts that a build says it knows, by role.
fn layouts_of(exe: &Path) -> anyhow::Result<BTreeMap<String, String>> {
    let name = exe.display();
    let output = Command::new(exe)
        .arg("__layouts")
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()
        .with_context(|| format!("cannot start {name}"))?;
    let known = serde_json::from_slice(&output.stdout).ok();
    let Some(known) = known.filter(|_| output.status.success()) else {
        bail!("{name} is no build of strata that can be upgraded to; nothing was changed");
    };
    Ok(known)
}
