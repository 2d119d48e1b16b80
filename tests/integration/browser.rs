//! A real browser: headless Chromium, told what to do over its debugging pipe. It must not know what the pages are.

use std::path::Path;
use std::process::Stdio;

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::time::timeout;

use crate::daemon::DEADLINE;

/// The browser speaks on descriptors 3 and 4, which `exec` can't name: the shell moves its own there.
const LAUNCH: &str = "exec \"$0\" \"$@\" 3<&0 4>&1 </dev/null >/dev/null 2>&1";

/// A browser with one page; it ends when dropped.
pub struct Browser {
    child: Child,
    orders: ChildStdin,
    words: BufReader<ChildStdout>,
    number: u64,
    page: String,
    /// What the browser said unasked.
    events: Vec<Value>,
    _profile: TempDir,
}

impl Browser {
    pub async fn start() -> Self {
        let profile = TempDir::new().unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", LAUNCH, "chromium", "--headless", "--remote-debugging-pipe", "--disable-gpu"]);
        // tests run as root in containers, where its sandbox does not start; the pages are our own
        command.args(["--no-sandbox", "--no-first-run", "--hide-scrollbars", "--disable-dev-shm-usage"]);
        command.arg(format!("--user-data-dir={}", profile.path().display()));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).kill_on_drop(true);
        let mut child = command.spawn().unwrap();
        let (orders, words) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
        let (page, events) = (String::new(), Vec::new());
        let mut browser = Self { child, orders, words, number: 0, page, events, _profile: profile };
        let target = browser.call("Target.createTarget", json!({"url": "about:blank"})).await;
        let attach = json!({"targetId": target["targetId"], "flatten": true});
        browser.page = browser.call("Target.attachToTarget", attach).await["sessionId"].as_str().unwrap().to_owned();
        for part in ["Page.enable", "Runtime.enable", "Log.enable", "Network.enable"] {
            browser.call(part, json!({})).await;
        }
        browser
    }

    /// Gives the page a window of this width, and the scheme that its reader prefers.
    pub async fn resize(&mut self, width: u32, dark: bool) {
        let size = json!({"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": false});
        self.call("Emulation.setDeviceMetricsOverride", size).await;
        let scheme = json!({"name": "prefers-color-scheme", "value": if dark { "dark" } else { "light" }});
        self.call("Emulation.setEmulatedMedia", json!({"features": [scheme]})).await;
    }

    /// Loads a file, to its end.
    pub async fn open(&mut self, file: &Path) {
        self.events.clear();
        let answer = self.call("Page.navigate", json!({"url": format!("file://{}", file.display())})).await;
        assert!(answer.get("errorText").is_none(), "{answer}");
        while !self.events.iter().any(|event| event["method"] == "Page.loadEventFired") {
            let event = self.listen().await;
            self.events.push(event);
        }
    }

    /// What an expression in the page comes to.
    pub async fn evaluate(&mut self, expression: &str) -> Value {
        let answer = self.call("Runtime.evaluate", json!({"expression": expression, "returnByValue": true})).await;
        assert!(answer.get("exceptionDetails").is_none(), "{answer}");
        answer["result"]["value"].clone()
    }

    /// What the console has shown since the page was opened: errors, warnings, all that a script logs.
    pub fn console(&self) -> Vec<&Value> {
        let shown = ["Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded"];
        self.events.iter().filter(|event| shown.iter().any(|method| event["method"] == *method)).collect()
    }

    /// What the page has asked for, itself included.
    pub fn requested(&self) -> Vec<&str> {
        let requests = self.events.iter().filter(|event| event["method"] == "Network.requestWillBeSent");
        requests.filter_map(|event| event["params"]["request"]["url"].as_str()).collect()
    }

    /// Ends it, and waits for that.
    pub async fn close(mut self) {
        self.page.clear();
        self.call("Browser.close", json!({})).await;
        timeout(DEADLINE, self.child.wait()).await.expect("the browser does not end").unwrap();
    }

    async fn call(&mut self, method: &str, params: Value) -> Value {
        self.number += 1;
        let mut order = json!({"id": self.number, "method": method, "params": params});
        if !self.page.is_empty() {
            order["sessionId"] = self.page.clone().into();
        }
        let order = [order.to_string().as_bytes(), &[0]].concat();
        // one that is not there is noticed when it does not answer
        let _ = self.orders.write_all(&order).await;
        loop {
            let word = self.listen().await;
            if word["id"] == self.number {
                assert!(word.get("error").is_none(), "{method}: {word}");
                return word["result"].clone();
            }
            self.events.push(word);
        }
    }

    async fn listen(&mut self) -> Value {
        let mut word = Vec::new();
        let read = timeout(DEADLINE, self.words.read_until(0, &mut word));
        read.await.expect("the browser says nothing").unwrap();
        let Some((0, word)) = word.split_last() else {
            panic!(
                "no browser, or it has ended: these tests need `chromium` in the PATH \
                 (tests/run installs it; by hand: apt-get install --no-install-recommends chromium)"
            );
        };
        serde_json::from_slice(word).unwrap()
    }
}
