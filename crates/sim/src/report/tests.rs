//! Reports of real runs, small ones.

use super::*;
use crate::checker::Violation;
use crate::run::run_all;
use crate::scenario::Scenario;
use crate::strategy;

fn results() -> Vec<RunResult> {
    let text = "
question = 'What <now>?'
duration = '3s'
[nodes]
count = 4
[network]
latency = '20ms'
[[limit]]
rate = '1000/s'
[[workload]]
load = 2.0
[[event]]
at = '1s'
kind = 'partition'
sides = [['n1', 'n2'], ['n3', 'n4']]
for = '1s'
";
    let scenario = Scenario::parse("split <&>", text, &|_| Err("no such file".into())).expect("a scenario");
    let strategies: Vec<_> = ["oracle", "gossip", "strict"].iter().filter_map(|n| strategy::find(n)).collect();
    run_all(&scenario, &strategies, &[1], 2, &|_| {})
}

fn violation() -> Violation {
    let (checker, what, replay) = ("promise".into(), "3 over".into(), "spillgate simulate x".into());
    Violation { checker, seed: 1, at: 1_500_000_000, key: Some("api/k".into()), what, replay }
}

#[test]
fn the_table_has_a_line_a_run_and_every_violation() {
    let mut all = results();
    all[2].violations.push(violation());
    let text = terminal(&all);
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines[0] == "split <&>" && lines[1].contains("over tokens"), "{text}");
    assert!(lines[2].starts_with("  oracle") && lines[4].contains("unconfirmed"), "{text}");
    assert!(lines[5].starts_with("  nobody goes over by less and admits more than strict"), "{text}");
    assert!(lines[6].contains("strict, promise: seed 1 at 1.500000 s, key api/k: 3 over"), "{text}");
    assert!(lines[7].contains("replay:"), "{text}");
}

#[test]
fn who_goes_over_by_no_more_and_admits_more_is_named() {
    let mut all = results();
    let who = |all: &[RunResult]| -> Vec<(String, bool)> {
        rivals(all).map(|rival| (rival.other.strategy.clone(), rival.less_over)).collect()
    };
    // the oracle is no real system, gossip is ours
    assert_eq!(who(&all), []);
    let mut other = all[0].clone();
    other.strategy = "central".into();
    all.push(other);
    assert_eq!(who(&all), [("central".to_owned(), false)]);
    assert!(terminal(&all).contains("as little over and more admitted: central\n"));
    all[2].measures.limits[0].overshoot = 2.0;
    assert_eq!(who(&all), [("central".to_owned(), true)]);
    assert!(terminal(&all).contains("  OUTDONE strict: less over and more admitted: central\n"));
    // of another seed, or no more admitted
    all[3].seed = 2;
    assert_eq!(who(&all), []);
    all[3].seed = 1;
    all[3].measures.admitted = all[2].measures.admitted;
    assert_eq!(who(&all), []);
}

#[test]
fn json_is_read_back_as_it_was_and_csv_has_every_measure() {
    let all = results();
    let back: Vec<RunResult> = serde_json::from_str(&json(&all)).expect("its own JSON");
    // (a double read from text may differ in its last bit)
    assert!(terminal(&back) == terminal(&all) && html(&back) == html(&all), "{back:?}");
    let text = csv(&all);
    let widths: Vec<usize> = text.lines().map(|l| l.split(',').count()).collect();
    assert_eq!(widths, vec![5 + NAMES.len(); 4]);
    assert!(!text.contains("NaN"), "{text}");
    assert_eq!(quoted("a,\"b\""), "\"a,\"\"b\"\"\"");
}

#[test]
fn a_comparison_says_what_changed_in_words() {
    let old = results();
    assert!(compare(&old, &old).lines().all(|l| l.ends_with("the same, decision for decision")));
    let mut now = old.clone();
    now[2].hash = "0".into();
    now[2].measures.admitted.sum /= 2;
    now[1].strategy = "other".into();
    let text = compare(&old, &now);
    assert!(text.contains("utilisation, %: ") && text.contains("(worse)"), "{text}");
    assert!(text.contains("other, seed 1: new, not in the baseline"), "{text}");
    assert!(text.contains("gossip, seed 1: only in the baseline"), "{text}");
}

#[test]
fn the_page_is_complete_in_itself_and_escapes_names() {
    let all = results();
    let page = html(&all);
    for outside in ["http://", "https://", "<script", "@import", "url(", "split <&>", "<now>"] {
        assert!(!page.contains(outside), "{outside}");
    }
    assert!(
        page.contains("split &lt;&amp;&gt;")
            && page.contains("What &lt;now&gt;?")
            && page.contains("prefers-color-scheme:dark")
    );
    // three bars side by side, the rates of each run, gossip beyond the limit, convergence of those that gossip
    assert_eq!(page.matches("<svg").count(), 3 + 3 + 1 + 2);
    assert_eq!(page.matches("<svg").count(), page.matches("</svg>").count());
    assert!(page.matches("class=\"fault\"").count() == 4 && page.matches("class=\"limit\"").count() == 3);
    assert!(
        page.contains("<b>strict</b> never went over the limit") && page.contains("<b>gossip</b> went over by"),
        "{page}"
    );
}

#[test]
fn a_page_about_nothing_is_a_page() {
    assert!(html(&[]).ends_with("</html>\n"));
    assert_eq!((terminal(&[]), compare(&[], &[])), (String::new(), String::new()));
}
