//! The fields of a record by name, for assertions: whatever its debug form shows, so that a new
//! field needs no line here.

use std::collections::BTreeMap;
use std::fmt::Debug;

/// `name.name` to value, from `{:#?}`.
pub(crate) fn fields(of: &impl Debug) -> BTreeMap<String, String> {
    let text = format!("{of:#?}");
    let mut found = BTreeMap::new();
    let mut path: Vec<String> = vec![];
    let mut counts = vec![0];
    for line in text.lines().skip(1) {
        let line = line.trim().trim_end_matches(',');
        if matches!(line, "}" | "]" | ")") {
            path.pop();
            counts.pop();
            continue;
        }
        let opens = line.ends_with(['{', '[', '(']);
        let (name, value) = match line.split_once(": ") {
            Some((name, value)) => (name.to_owned(), value),
            None => {
                let count = counts.last_mut().map_or(0, |n| {
                    *n += 1;
                    *n - 1
                });
                (count.to_string(), line)
            }
        };
        path.push(name);
        if opens {
            counts.push(0);
        } else {
            found.insert(path.join("."), value.to_owned());
            path.pop();
        }
    }
    found
}
