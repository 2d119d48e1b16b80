//! What the command prints, writes and exits with.

use clap::Parser;

use super::*;

const PLAIN: &str =
    "duration = '1s'\nstrategies = ['oracle', 'strict']\n[[limit]]\nrate = '100/s'\n[[workload]]\nload = 3\n";

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    args: SimulateArgs,
}

/// Runs the command on a scenario of that text, in a directory of its own that `$DIR` stands for.
fn simulate(text: &str, more: &[&str], look: impl FnOnce(&Path)) -> (anyhow::Result<Exit>, String) {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("mine.toml");
    fs::write(&file, text).unwrap();
    let here = directory.path().to_str().unwrap();
    let more = more.iter().map(|arg| arg.replace("$DIR", here));
    let line = ["simulate".to_owned(), file.to_str().unwrap().to_owned()].into_iter().chain(more);
    let args = Line::try_parse_from(line).unwrap().args;
    let mut out = Vec::new();
    let exit = run(&args, &mut out);
    look(directory.path());
    (exit, String::from_utf8(out).unwrap().replace(here, "$DIR"))
}

#[test]
fn runs_that_are_as_expected_exit_with_0() {
    let (exit, out) = simulate(PLAIN, &[], |_| {});
    assert_eq!(exit.unwrap(), Exit::Ok);
    assert!(out.contains("oracle") && out.contains("strict"), "{out}");
    assert!(out.ends_with("2 runs of 1 scenario: all as expected\n"), "{out}");
}

#[test]
fn a_claim_that_does_not_hold_exits_with_1_and_tells_how_to_see_it_again() {
    let claim = "[[expect]]\nstrategy = 'strict'\nmeasure = 'utilisation_percent'\nmin = 200\nwhy = 'a wish'\n";
    let (exit, out) = simulate(&format!("{PLAIN}{claim}"), &["--seed", "5", "--seeds", "2"], |_| {});
    assert_eq!(exit.unwrap(), Exit::Negative);
    assert!(out.contains("FAILED mine: strict, seed 5: utilisation_percent is "), "{out}");
    assert!(out.contains("(line 7: a wish)"), "{out}");
    assert!(out.contains("again: spillgate simulate $DIR/mine.toml --strategy strict --seed 6\n"), "{out}");
    assert!(out.ends_with("4 runs of 1 scenario: 2 not as expected\n"), "{out}");
}

#[test]
fn a_bad_scenario_is_explained_by_line_and_exits_with_2() {
    let (exit, _) = simulate(&PLAIN.replace("100/s", "100/x"), &[], |_| {});
    let error = exit.unwrap_err();
    assert_eq!(Exit::after(&error), Exit::Usage);
    let text = error.to_string();
    assert!(text.contains("mine.toml:4: ") && text.contains("must be a rate like"), "{text}");
    assert_eq!(Line::try_parse_from(["simulate", "x.toml", "--strategy", "strickt"]).err().unwrap().exit_code(), 2);
    assert_eq!(Line::try_parse_from(["simulate"]).err().unwrap().exit_code(), 2);
}

#[test]
fn results_are_written_and_compared() {
    let only = ["--strategy", "oracle", "--out", "$DIR/new/out"];
    let (exit, _) = simulate(PLAIN, &only, |dir| {
        let kept = outcome::read(&dir.join("new/out/results.json")).unwrap();
        assert_eq!((kept.len(), kept[0].strategy.as_str()), (1, "oracle"));
        assert_eq!(fs::read_to_string(dir.join("new/out/results.csv")).unwrap().lines().count(), 2);
        let page = fs::read_to_string(dir.join("new/out/report.html")).unwrap();
        assert!(page.contains("<svg") && page.contains("oracle"), "{page}");
    });
    assert_eq!(exit.unwrap(), Exit::Ok);
    let (exit, _) = simulate(PLAIN, &["--baseline", "$DIR/mine.toml"], |_| {});
    assert!(exit.unwrap_err().to_string().contains("no results.json"));
}

#[test]
fn every_decision_is_traced() {
    let (exit, out) = simulate(PLAIN, &["--strategy", "strict", "--seed", "3", "--trace", "$DIR/t.csv"], |dir| {
        let text = fs::read_to_string(dir.join("t.csv")).unwrap();
        let offered = text.lines().count() - 1;
        assert!(text.starts_with("time_ns,node,limit,key,cost,allowed,reason\n"), "{text}");
        assert!((200..400).contains(&offered), "{offered}");
        assert!(text.lines().skip(1).all(|l| l.split(',').count() == 7 && l.contains(",api,k,1,")), "{text}");
    });
    assert_eq!(exit.unwrap(), Exit::Ok, "{out}");
    let (exit, _) = simulate(PLAIN, &["--trace", "$DIR/t.csv"], |dir| {
        assert!(dir.join("t.mine.oracle.1.csv").exists() && dir.join("t.mine.strict.1.csv").exists());
    });
    assert_eq!(exit.unwrap(), Exit::Ok);
}

#[test]
fn a_directory_is_all_its_scenarios_and_tables_are_filled_in() {
    let page = "# mine\n<!-- simulated: questions -->\n<!-- /simulated -->\nrest\n";
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    for name in ["b.toml", "a.toml"] {
        fs::write(path(name), PLAIN).unwrap();
    }
    fs::write(path("page.md"), page).unwrap();
    let here = directory.path().to_str().unwrap().to_owned();
    let table = path("page.md").to_str().unwrap().to_owned();
    let mut out = Vec::new();
    let args = Line::try_parse_from(["simulate", &here, "--table", &table]).unwrap().args;
    assert_eq!(run(&args, &mut out).unwrap(), Exit::Ok);
    let out = String::from_utf8(out).unwrap();
    assert!(out.starts_with("a\n") && out.ends_with("4 runs of 2 scenarios: all as expected\n"), "{out}");
    let filled = fs::read_to_string(path("page.md")).unwrap();
    assert!(filled.starts_with("# mine\n") && filled.ends_with("rest\n"), "{filled}");
    assert!(filled.contains("\n| a | 0 / ") && filled.contains("\n| b | 0 / "), "{filled}");
    // what can't be filled in is told before anything is run
    fs::write(path("page.md"), "# mine\n").unwrap();
    assert!(run(&args, &mut Vec::new()).unwrap_err().to_string().contains("no table to fill in"));
    let empty = tempfile::tempdir().unwrap();
    let args = Line::try_parse_from(["simulate", empty.path().to_str().unwrap()]).unwrap().args;
    assert!(run(&args, &mut Vec::new()).unwrap_err().to_string().contains("no scenario in this directory"));
}
