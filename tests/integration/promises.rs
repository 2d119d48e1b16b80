//! The README's table of faults names tests: they are there.

use std::fs;
use std::path::{Path, PathBuf};

/// The sources under this path, which is a file or a directory.
fn sources(path: &Path) -> Vec<PathBuf> {
    if path.is_file() {
        return vec![path.to_owned()];
    }
    let Ok(entries) = fs::read_dir(path) else { return Vec::new() };
    entries.flat_map(|entry| sources(&entry.unwrap().path())).collect()
}

/// Whether a test of that name stands in these files; `*` at its end is any rest.
fn is_there(name: &str, files: &[PathBuf]) -> bool {
    let wanted = match name.strip_suffix('*') {
        Some(begin) => format!("fn {begin}"),
        None => format!("fn {name}("),
    };
    let holds = |file: &PathBuf| {
        let text = fs::read_to_string(file).unwrap();
        // what has an attribute is a test, and not one of its helpers
        let head = |at: usize| text[..at].trim_end().trim_end_matches("async").trim_end();
        text.match_indices(&wanted).any(|(at, _)| head(at).ends_with(']'))
    };
    files.iter().any(holds)
}

/// What a name of the table leads to: a path of the repository, a module and a test in it, or a test of the `module` that
/// was named last.
fn find<'t>(token: &'t str, module: &mut &'t str) -> Result<(), String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    if token.contains('/') {
        let places = ["", "src", "crates"].map(|base| root.join(base).join(token));
        return if places.iter().any(|p| p.exists()) { Ok(()) } else { Err(format!("{token} is no path")) };
    }
    let name = match token.rsplit_once("::") {
        // a module of unit tests as a whole
        Some((first, "tests")) => {
            *module = first;
            "*"
        }
        Some((first, name)) => {
            *module = first;
            name
        }
        None => token,
    };
    let within = module.strip_suffix("::tests");
    let base = if within.is_some() || token.ends_with("::tests") { "src" } else { "tests/integration" };
    let base = root.join(base).join(within.unwrap_or(module));
    let files = [sources(&base), sources(&base.with_extension("rs"))].concat();
    if is_there(name, &files) { Ok(()) } else { Err(format!("{token}: no such test in {}", base.display())) }
}

#[test]
fn every_test_that_the_table_of_faults_names_is_there() {
    let readme = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).unwrap();
    let table = readme.split("## When things break").nth(1).unwrap().split("\n## ").next().unwrap();
    let rows: Vec<&str> = table.lines().filter(|line| line.starts_with('|')).skip(2).collect();
    assert!(rows.len() > 10, "{rows:?}");
    for row in rows {
        let cell = row.split('|').nth(3).unwrap();
        let tokens: Vec<&str> = cell.split('`').skip(1).step_by(2).collect();
        assert!(!tokens.is_empty(), "nothing proves {row}");
        let mut module = "";
        for token in tokens {
            find(token, &mut module).unwrap_or_else(|e| panic!("{e}; in {row}"));
        }
    }
}

#[test]
fn a_name_that_leads_nowhere_is_found_out() {
    for (token, good) in [
        ("churn::two_clusters_*", true),
        ("churn::three_clusters_*", false),
        ("churn::start_forgetful", false),
        ("nowhere::*", false),
        ("core/tests/keep.rs", true),
        ("core/tests/lost.rs", false),
        ("snapshot::tests", true),
        ("cluster::tests::garbage_on_the_port_is_harmless", true),
        ("cluster::tests::garbage_*_is_poison", false),
    ] {
        assert_eq!(find(token, &mut "").is_ok(), good, "{token}");
    }
}
