//! The report of `spillgate simulate` as its readers see it: in a real browser, in windows narrow and wide, light and
//! dark.

use std::fs;

use serde::Deserialize;
use tempfile::TempDir;

use crate::browser::Browser;
use crate::command::run_in;

/// One key, split in two for a while, under every strategy: the longest names, bounds, overshoot; and news that takes
/// from a fraction of a millisecond to a second, so that histograms have many bars.
const SPLIT: &str = "question = 'What does a split cost?'\nduration = '6s'\n[nodes]\ncount = 4\ngossip_interval = '1ms'\n\
    [network]\nlatency = '300us'\nlatency_sigma = 1.5\n[[limit]]\nrate = '1000/s'\n[[workload]]\nload = 1.5\n\
    [[event]]\nat = '2s'\nkind = 'partition'\nsides = [['n1', 'n2'], ['n3', 'n4']]\nfor = '2s'\n";
/// Many keys under two limits, and nodes that come and go.
const KEYS: &str = "question = 'And with many keys?'\nduration = '3s'\nstrategies = ['gossip', 'strict']\nseeds = 2\n\
    [[limit]]\nname = 'per-user'\nrate = '10/s'\n[[limit]]\nname = 'other'\nrate = '2000/s'\n\
    [[workload]]\nlimit = 'per-user'\nrate = '900/s'\nkeys = 50\n[[workload]]\nlimit = 'other'\nload = 2\n\
    [[event]]\nat = '1s'\nkind = 'crash'\nnode = ['n1', 'n2']\nfor = '500ms'\nstagger = '700ms'\n";

/// Widths of windows in pixels: a phone, half a screen, a screen.
const WIDTHS: [u32; 3] = [480, 1100, 1600];
/// Letters below this are not read, pixels.
const LETTERS_MIN: f64 = 10.0;
/// The contrast of small text that WCAG 2 (1.4.3) asks for.
const CONTRAST_MIN: f64 = 4.5;

/// What is seen of the page.
#[derive(Debug, Deserialize)]
struct Page {
    /// How wide all of it is, pixels.
    wide: f64,
    /// Text of the table's rows; of the heads within it.
    rows: Vec<String>,
    scenarios: Vec<String>,
    /// Whether the table comes before any plot.
    table_first: bool,
    /// Lightness of the background, 0 to 1, and the least contrast of any text with it.
    light: f64,
    contrast: f64,
    plots: Vec<Plot>,
}

#[derive(Debug, Deserialize)]
struct Plot {
    title: String,
    wide: f64,
    tall: f64,
    /// The smallest letters, pixels.
    letters: f64,
    texts: Vec<String>,
    /// Texts that lie upon one another, or stick out.
    clashes: Vec<String>,
    /// Lines, areas and bars that are drawn inside, in a colour that is seen: their classes.
    drawn: Vec<String>,
    /// Those that are not.
    unseen: Vec<String>,
}

/// Looks at the page as it is laid out.
const LOOK: &str = include_str!("report.js");

async fn look(browser: &mut Browser) -> Page {
    let seen = browser.evaluate(LOOK).await;
    serde_json::from_value(seen.clone()).unwrap_or_else(|error| panic!("{error}: {seen}"))
}

impl Plot {
    fn has(&self, class: &str) -> bool {
        self.drawn.iter().any(|drawn| drawn == class)
    }

    /// That it can be read, and shows something.
    fn assert_legible(&self, window: &str) {
        let Self { title, wide, tall, letters, clashes, unseen, .. } = self;
        assert!(*wide >= 400.0 && *tall >= 50.0, "{window}: {title} is {wide} x {tall}");
        assert!(*letters >= LETTERS_MIN, "{window}: letters of {letters} px in {title}");
        assert!(clashes.is_empty(), "{window}: in {title}: {clashes:?}");
        assert!(unseen.is_empty(), "{window}: {title} does not show {unseen:?}");
        assert!(self.drawn.iter().any(|class| class != "fault"), "{window}: {title} is empty");
    }

    /// That it shows what its kind has to.
    fn assert_complete(&self, window: &str) {
        let Self { title, texts, drawn, .. } = self;
        let says = |text: &str| texts.iter().any(|t| t.contains(text));
        let over_time = title.starts_with("Tokens");
        if over_time {
            assert!(says("time, s") && says("tokens") && self.has("fault"), "{window}: {title}: {texts:?} {drawn:?}");
        }
        let expected: &[&str] = match title.as_str() {
            "Tokens a second under api" => &["admitted", "offered", "central", "limit"],
            title if title.starts_with("Tokens a second") => &["admitted", "offered", "central"],
            title if title.starts_with("Tokens over") && !self.has("over") => &["bound"],
            title if title.starts_with("Tokens over") => &["over"],
            "Overshoot at worst" => &["overbar"],
            _ => &["bar"],
        };
        assert!(expected.iter().all(|class| self.has(class)), "{window}: {title} has only {drawn:?}");
        let units = [("Overshoot", "tokens"), ("Admitted", "%"), ("Traffic", "bytes/s"), ("Convergence", "ms")];
        for (begin, unit) in units {
            assert!(!title.starts_with(begin) || says(unit), "{window}: {title} has no {unit}: {texts:?}");
        }
    }
}

impl Page {
    fn assert_good(&self, (width, dark): (u32, bool)) {
        let window = format!("{width} px, {}", if dark { "dark" } else { "light" });
        assert!(self.wide <= f64::from(width), "{window}: {} px wide", self.wide);
        assert!(self.table_first, "{window}");
        assert_eq!(self.scenarios, ["keysAnd with many keys?", "splitWhat does a split cost?"], "{window}");
        assert_eq!(self.rows.len(), 2 * 2 + spillgate_sim::strategy::ALL.len(), "{window}: {:?}", self.rows);
        let told = |row: &String| row.contains("what one central bucket would have");
        assert!(self.rows.iter().all(told), "{window}: {:?}", self.rows);
        assert!(if dark { self.light < 0.1 } else { self.light > 0.9 }, "{window}: {}", self.light);
        assert!(self.contrast >= CONTRAST_MIN, "{window}: contrast {}", self.contrast);
        for plot in &self.plots {
            plot.assert_legible(&window);
            plot.assert_complete(&window);
        }
        let count = |begin: &str| self.plots.iter().filter(|p| p.title.starts_with(begin)).count();
        let runs = self.rows.len();
        assert_eq!((count("Tokens a second"), count("Overshoot at worst")), (runs + 2 * 2, 2), "{window}");
        assert!(count("Tokens over") >= 4 && count("Convergence") == 2 * 2 + 3, "{window}: {}", self.plots.len());
        assert!(self.plots.iter().any(|p| p.title == "Tokens a second under api" && p.has("over")), "{window}");
    }
}

#[tokio::test]
async fn a_browser_shows_all_of_the_report() {
    let directory = TempDir::new().unwrap();
    for (name, text) in [("keys.toml", KEYS), ("split.toml", SPLIT)] {
        fs::write(directory.path().join(name), text).unwrap();
    }
    let simulated = run_in(directory.path(), &["simulate", "keys.toml", "split.toml", "--out", "out"]).await;
    // where no terminal is, a line a scenario says how far it has come
    let mut told: Vec<&str> = simulated.err.lines().filter_map(|line| line.rsplit(": ").next()).collect();
    told.sort_unstable();
    assert_eq!((simulated.code, told), (0, vec!["keys", "split"]), "{simulated:?}");
    let file = directory.path().join("out/report.html");
    let mut browser = Browser::start().await;
    for window in WIDTHS.into_iter().flat_map(|width| [(width, false), (width, true)]) {
        browser.resize(window.0, window.1).await;
        browser.open(&file).await;
        look(&mut browser).await.assert_good(window);
        assert!(browser.console().is_empty(), "{window:?}: {:?}", browser.console());
        let outside: Vec<&str> = browser.requested().into_iter().filter(|url| !url.starts_with("data:")).collect();
        assert_eq!(outside, [format!("file://{}", file.display())]);
    }
    browser.close().await;
}
