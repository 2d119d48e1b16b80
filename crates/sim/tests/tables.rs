//! The tables in README.md and simulations/README.md are those of the present core and scenarios. Make them anew by
//! `cargo run --release -- simulate simulations --table README.md --table simulations/README.md`.

use std::path::{Path, PathBuf};

use spillgate_sim::report::tables::{self, Outcome, fill, stale};
use spillgate_sim::run::{Job, RunResult, run_jobs};
use spillgate_sim::scenario::Scenario;

/// The pages, from the root of the repository.
const PAGES: [&str; 2] = ["README.md", "simulations/README.md"];

/// Those that take too long here: of them only the texts are compared, not what they come to. All others are run, and
/// any change of the core's doings shows in one of them.
const SLOW: [&str; 14] = [
    "many-keys",
    "on-off",
    "rateguard-duplicates",
    "rateguard-one-way",
    "rateguard-rolling",
    "rateguard-split",
    "retry-storm",
    "sigcomm-even",
    "sigcomm-loss",
    "sigcomm-many",
    "small-limits",
    "steady-even",
    "steady-zipf",
    "three-regions",
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn shipped() -> Vec<Scenario> {
    let files = std::fs::read_dir(root().join("simulations")).expect("it is there");
    let files = files.map(|entry| entry.expect("it can be listed").path());
    let mut files: Vec<PathBuf> = files.filter(|path| path.extension().is_some_and(|e| e == "toml")).collect();
    files.sort();
    let all = files.iter().map(|path| Scenario::load(path).expect("what is shipped can be read"));
    all.filter(|scenario| scenario.swarm.is_none()).collect()
}

/// What every strategy comes to in each of these, under its own seeds.
fn results(scenarios: &[&Scenario]) -> Vec<Vec<RunResult>> {
    let seeds: Vec<Vec<u64>> = scenarios.iter().map(|s| (s.seed..s.seed + s.seeds).collect()).collect();
    let jobs: Vec<Job<'_>> = scenarios.iter().zip(&seeds).flat_map(|(s, n)| Job::all(s, &s.strategies, n)).collect();
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let mut all = run_jobs(&jobs, threads, &|_| {}).into_iter();
    scenarios.iter().map(|s| all.by_ref().take(s.strategies.len() * s.seeds as usize).collect()).collect()
}

#[test]
fn the_pages_tables_are_those_of_the_present_core_and_scenarios() {
    let shipped = shipped();
    let (slow, quick): (Vec<&Scenario>, Vec<&Scenario>) = shipped.iter().partition(|s| SLOW.contains(&s.name.as_str()));
    assert_eq!(slow.len(), SLOW.len(), "what is named as slow is shipped");
    let results = results(&quick);
    let outcomes: Vec<Outcome<'_>> =
        quick.iter().zip(&results).map(|(scenario, results)| Outcome { scenario, results }).collect();
    for page in PAGES {
        let text = std::fs::read_to_string(root().join(page)).expect("the page is there");
        assert!(!tables::names(&text).is_empty(), "{page} has no table");
        // README shows no published figures
        let shown = slow.iter().copied().filter(|s| page != "README.md" || s.published.is_none());
        let stale = stale(&text, &outcomes, shown);
        assert!(
            stale.is_empty(),
            "{page} is stale; run: cargo run --release -- simulate simulations --table README.md --table simulations/README.md\n{}",
            stale.join("\n")
        );
        // nothing is shown of what is not shipped (any more)
        let known =
            |line: &&str| shipped.iter().any(|s| line.starts_with(&format!("{} {:016x} ", s.name, s.fingerprint)));
        let unknown: Vec<&str> = text.lines().filter(|line| is_made_of(line)).filter(|line| !known(line)).collect();
        assert_eq!(unknown, Vec::<&str>::new(), "{page} shows what is not shipped");
    }
}

/// A line of the list of what a table was made of: a name and two hashes.
fn is_made_of(line: &str) -> bool {
    let hash = |part: &str| part.len() == 16 && part.bytes().all(|b| b.is_ascii_hexdigit());
    line.split(' ').skip(1).filter(|part| hash(part)).count() == 2
}

const PAGE: &str = "# a page\n<!-- simulated: questions -->\nold\n<!-- /simulated -->\nthe end\n";

#[test]
fn a_page_is_stale_when_a_run_or_a_scenario_changed_and_not_otherwise() {
    let text = |load: f64| {
        format!(
            "duration = '1s'\nstrategies = ['strict', 'gossip']\n[[limit]]\nrate = '100/s'\n[[workload]]\nload = {load}\n"
        )
    };
    let read = |text: &str| Scenario::parse("mine", text, &|_| Err("no files".to_owned())).expect("a scenario");
    let (before, after) = (read(&text(3.0)), read(&text(3.5)));
    let of = results(&[&before, &after]);
    let outcome = Outcome { scenario: &before, results: &of[0] };
    let page = fill(PAGE, &[outcome]).expect("it has a place for a table");
    assert!(page.starts_with("# a page\n") && page.ends_with("<!-- /simulated -->\nthe end\n"), "{page}");
    assert!(page.contains("\n| scenario | gossip | strict |\n") && !page.contains("old"), "{page}");
    assert_eq!(stale(&page, &[outcome], [&before]), Vec::<String>::new());
    assert_eq!(fill(&page, &[outcome]).expect("again"), page, "made anew it is the same");
    // other requests; and runs that come to the same figures in another way
    assert!(!stale(&page, &[Outcome { scenario: &after, results: &of[1] }], []).is_empty());
    assert!(!stale(&page, &[], [&after]).is_empty());
    let mut otherwise = of[0].clone();
    otherwise[0].hash = "0".to_owned();
    assert_eq!(stale(&page, &[Outcome { scenario: &before, results: &otherwise }], []).len(), 1);
    // claims and comments are not what is run
    let claimed = read(&format!("# new\n{}[[expect]]\nmeasure = 'overshoot'\nmin = 0\nwhy = 'x'\n", text(3.0)));
    assert_eq!(claimed.fingerprint, before.fingerprint);
}

#[test]
fn a_page_that_cannot_be_filled_in_is_explained() {
    let scenario =
        Scenario::parse("mine", "duration = '1s'\n[[limit]]\nrate = '9/s'\n[[workload]]\nload = 1\n", &|_| {
            Err(String::new())
        });
    let scenario = scenario.expect("a scenario");
    let (results, why) = (results(&[&scenario]), |page: &str, outcomes: &[Outcome<'_>]| {
        fill(page, outcomes).expect_err("it is wrong").to_string()
    });
    let outcome = [Outcome { scenario: &scenario, results: &results[0] }];
    assert!(why("# nothing\n", &outcome).starts_with("no table to fill in"));
    assert!(why("<!-- simulated: questions -->\n", &outcome).starts_with("line 1: the table has no end"));
    assert!(
        why(&PAGE.replace("questions", "somebody"), &outcome).contains("line 2: table \"somebody\" would be empty")
    );
}
