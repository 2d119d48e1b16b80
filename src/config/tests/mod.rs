//! Tests of the configuration as a whole: what is taken, what is refused and where, and the files that are shipped.

mod accepted;
mod any_text;
mod refused;
mod shipped;

use std::path::Path;

use super::{Config, ConfigError, Overrides, Problem};

/// What `text` says, with `overrides` over it; what it names is not opened.
fn read_with(text: &str, overrides: &Overrides) -> Result<Config, ConfigError> {
    Config::parse(text, Some(Path::new("dir/spillgate.toml")), overrides, |_| Ok(()))
}

/// What `text` alone says.
fn read(text: &str) -> Config {
    read_with(text, &Overrides::default()).unwrap()
}

/// All that is wrong with `text` and `overrides`.
fn problems_with(text: &str, overrides: &Overrides) -> Vec<Problem> {
    match read_with(text, overrides) {
        Ok(config) => panic!("{config:?} was made of:\n{text}"),
        Err(ConfigError::Invalid(problems)) => problems.all().to_vec(),
        Err(other) => panic!("{other}"),
    }
}

/// The only thing wrong with `text`: its line and what it says.
fn problem(text: &str) -> (usize, String) {
    let problems = problems_with(text, &Overrides::default());
    let [problem] = problems.as_slice() else { panic!("{problems:#?} of:\n{text}") };
    (problem.line().unwrap(), problem.text().to_owned())
}
