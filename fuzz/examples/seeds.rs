//! Fills `corpus/TARGET/` with what `seeds/TARGET/*.hex` say, so that the seeds can be read and
//! reviewed as text, and `corpus/engine/` with the runs of `tcpd/tests/fuzz`. A seed is hexadecimal digits; space does not count, and `#` starts a comment.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};

fn main() -> Result<()> {
    let fuzz = Path::new(env!("CARGO_MANIFEST_DIR"));
    let seeds = fuzz.join("seeds");
    let mut count = 0;
    for target in fs::read_dir(&seeds).with_context(|| format!("read {}", seeds.display()))? {
        let target = target?.path();
        let corpus = fuzz
            .join("corpus")
            .join(target.file_name().context("a folder has a name")?);
        fs::create_dir_all(&corpus).with_context(|| format!("create {}", corpus.display()))?;
        for seed in fs::read_dir(&target)? {
            let seed = seed?.path();
            let text =
                fs::read_to_string(&seed).with_context(|| format!("read {}", seed.display()))?;
            let bytes = decode(&text).with_context(|| format!("decode {}", seed.display()))?;
            fs::write(
                corpus.join(seed.file_stem().context("a file has a name")?),
                bytes,
            )?;
            count += 1;
        }
    }
    count += engine(fuzz)?;
    println!("{count} seeds");
    Ok(())
}

/// The engine's are lines of a name and digits, made from tcpd's scenarios.
fn engine(fuzz: &Path) -> Result<usize> {
    let corpus = fuzz.join("corpus/engine");
    fs::create_dir_all(&corpus).with_context(|| format!("create {}", corpus.display()))?;
    let mut count = 0;
    for file in ["corpus.txt", "covering.txt", "found.txt"] {
        let file = fuzz.join("../tcpd/tests/fuzz").join(file);
        let text = fs::read_to_string(&file).with_context(|| format!("read {}", file.display()))?;
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let (name, digits) = line.split_once(' ').context("a name and digits")?;
            fs::write(corpus.join(name.replace('/', "-")), decode(digits)?)?;
            count += 1;
        }
    }
    Ok(count)
}

fn decode(text: &str) -> Result<Vec<u8>> {
    let mut digits = vec![];
    for line in text.lines() {
        let (line, _comment) = line.split_once('#').unwrap_or((line, ""));
        for digit in line.chars().filter(|digit| !digit.is_whitespace()) {
            let digit = digit
                .to_digit(16)
                .with_context(|| format!("{digit:?} is no digit"))?;
            digits.push(u8::try_from(digit)?);
        }
    }
    let (pairs, rest) = digits.as_chunks::<2>();
    ensure!(rest.is_empty(), "an odd number of digits");
    Ok(pairs.iter().map(|[high, low]| high << 4 | low).collect())
}
