//! The runner itself: what it must find wrong, and how it says so.

use crate::lang::Script;
use crate::run::{Kill, Run};

/// A scenario, the line that is wrong, and a part of what is said.
const WRONG: [(&str, usize, &str); 16] = [
    ("established\n", 1, "title"),
    ("# T\nestablished\n", 2, "second line"),
    ("# T\n# R\nestablish\n", 3, "no such line"),
    ("# T\n# R\n+x wait\n", 3, "no such line"),
    ("# T\n# R\n1.5q wait\n", 3, "unit"),
    ("# T\n# R\n> X 1\n", 3, "flags are of"),
    ("# T\n# R\n> . 1\n", 3, "without an ack number"),
    ("# T\n# R\n< . 1:5(5) ack 1\n", 3, "the length is 4"),
    ("# T\n# R\n< S 0 <mss>\n", 3, "options are"),
    ("# T\n# R\nsocket\nset nagle on\n", 4, "no socket option"),
    ("# T\n# R\nestablished\nwrite 5\n", 4, "nothing expected it"),
    ("# T\n# R\nestablished\n> . 1 ack 1\n", 4, "nothing came"),
    (
        "# T\n# R\nestablished\nwrite 5\n> P. 1:5(4) ack 1\n",
        5,
        "the length differs",
    ),
    (
        "# T\n# R\nestablished\ncheck state=CLOSED\n",
        4,
        "it is ESTABLISHED",
    ),
    ("# T\n# R\nestablished\n! reset\n", 4, "did not come"),
    ("# T\n# R\nsocket\nlisten = EINVAL\n", 4, "came success"),
];

pub(crate) fn check() -> Result<(), String> {
    for (text, line, part) in WRONG {
        let found = match Script::parse(text) {
            Err(malformed) => Some((malformed.line, malformed.why)),
            Ok(script) => {
                let outcome = Run::new().script(&script, Kill::Never);
                outcome.err().map(|failure| (failure.line, failure.why))
            }
        };
        match found {
            Some((at, why)) if at == line && why.contains(part) => {}
            other => {
                return Err(format!(
                    "{text:?}: expected {part:?} at {line}, came {other:?}"
                ));
            }
        }
    }
    Ok(())
}
