//! A real browser, Debian's chromium without a window, spoken to by its DevTools protocol
//! (<https://chromedevtools.github.io/devtools-protocol/>) over a pair of pipes: no port, no library.
//!
//! [`Browser::look`] opens any URL or file as somebody with a screen of some width, in the light or in
//! the dark, with scripts or without; [`Tab::faults`] says what is wrong with what they see.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use base64::Engine as _;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::time::{Instant, timeout};

/// How long the browser may take for one thing, on a machine that builds things meanwhile.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often a page that changes by itself is looked at.
const POLL: Duration = Duration::from_millis(50);
/// Height of the screen.
const HEIGHT: u64 = 900;
/// Tallest screen for a picture, and how much of it is kept.
const TALLEST: u64 = 16_000;
const KEPT: u64 = 2_400;
/// Where pictures go, when somebody wants to look at them: a folder.
const PICTURES: &str = "STANDIN_SCREENSHOTS";

/// Screens a page is looked at on: width, and whether it is dark.
pub const SCREENS: [(u64, bool); 4] = [(390, false), (390, true), (1440, false), (1440, true)];

/// Counts, on a page, text whose contrast with what is behind it is less than 4.5 (WCAG 2, AA).
const FAINT: &str = r#"(() => {
  const numbers = (color) => color.match(/[\d.]+/g).map(Number);
  const luminance = ([r, g, b]) => {
    const [x, y, z] = [r, g, b].map((c) => (c / 255 <= 0.04045 ? c / 255 / 12.92 : ((c / 255 + 0.055) / 1.055) ** 2.4));
    return 0.2126 * x + 0.7152 * y + 0.0722 * z;
  };
  const behind = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const color = numbers(getComputedStyle(at).backgroundColor);
      if (color.length < 4 || color[3] > 0) return color;
    }
    return matchMedia("(prefers-color-scheme: dark)").matches ? [18, 18, 18] : [255, 255, 255];
  };
  const faint = [];
  let looked = 0;
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let text = texts.nextNode(); text; text = texts.nextNode()) {
    const element = text.parentElement;
    if (!text.data.trim() || !element.checkVisibility() || element.closest("style, script, noscript")) continue;
    const style = getComputedStyle(element);
    const ink = numbers(element.closest("svg") ? style.fill : style.color);
    const [light, dark] = [luminance(ink), luminance(behind(element))].sort((a, b) => b - a);
    looked += 1;
    const contrast = (light + 0.05) / (dark + 0.05);
    if (contrast < 4.5) faint.push(`${contrast.toFixed(2)}: ${text.data.trim().slice(0, 60)}`);
  }
  return { looked, faint };
})()"#;

/// A browser. Dropping it ends it.
#[derive(Debug)]
pub struct Browser {
    _process: Child,
    _profile: tempfile::TempDir,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
    last_id: u64,
    /// Events not yet asked for.
    events: Vec<Value>,
}

/// A page that is open.
#[derive(Debug)]
pub struct Tab<'a> {
    browser: &'a mut Browser,
    target: String,
    session: String,
    width: u64,
}

// === impl Browser ===

impl Browser {
    /// Starts one with a profile of its own.
    ///
    /// # Panics
    /// When there is no chromium.
    pub fn start() -> Self {
        let profile = tempfile::tempdir().unwrap();
        // The browser reads what it is told from descriptor 3 and writes what it has to say to 4.
        let mut command = Command::new("sh");
        command.arg("-c").arg(
            "exec chromium --headless=new --remote-debugging-pipe --disable-gpu --no-first-run \
             --disable-extensions --disable-background-networking --disable-dev-shm-usage \
             --user-data-dir=\"$0\" \"$@\" 3<&0 4>&1 </dev/null >/dev/null",
        );
        command.arg(profile.path());
        if rustix::process::geteuid().is_root() {
            // Its sandbox does not work for root. It only sees pages of ours.
            command.arg("--no-sandbox");
        }
        let mut process = command
            .env("HOME", profile.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .expect("sh starts");
        Self {
            to: process.stdin.take().unwrap(),
            from: BufReader::new(process.stdout.take().unwrap()),
            _process: process,
            _profile: profile,
            last_id: 0,
            events: Vec::new(),
        }
    }

    /// Opens a page and waits until it is loaded.
    pub async fn look(&mut self, url: &str, width: u64, dark: bool, scripts: bool) -> Tab<'_> {
        let made = self.call(None, "Target.createTarget", json!({"url": "about:blank"}));
        let target = made.await["targetId"].as_str().unwrap().to_owned();
        let attach = json!({"targetId": target, "flatten": true});
        let attached = self.call(None, "Target.attachToTarget", attach).await;
        let session = attached["sessionId"].as_str().unwrap().to_owned();
        let mut tab = Tab {
            browser: self,
            target,
            session,
            width,
        };
        for domain in ["Page.enable", "Runtime.enable", "Log.enable"] {
            tab.call(domain, json!({})).await;
        }
        tab.screen(HEIGHT).await;
        let scheme = if dark { "dark" } else { "light" };
        let scheme = json!({"name": "prefers-color-scheme", "value": scheme});
        tab.call("Emulation.setEmulatedMedia", json!({"features": [scheme]}))
            .await;
        let disabled = json!({"value": !scripts});
        tab.call("Emulation.setScriptExecutionDisabled", disabled)
            .await;
        let went = tab.call("Page.navigate", json!({"url": url})).await;
        assert!(went["errorText"].is_null(), "{url}: {went}");
        tab.browser.event(&tab.session, "Page.loadEventFired").await;
        tab
    }

    /// Looks at a page on every screen: it must have no faults and show every one of `words`, and a
    /// verdict. Where `STANDIN_SCREENSHOTS` names a folder, pictures are kept there under `name`.
    pub async fn check(&mut self, name: &str, url: &str, words: &[&str]) {
        for (width, dark) in SCREENS {
            let mut tab = self.look(url, width, dark, true).await;
            tab.keep(name, dark).await;
            let faults = tab.faults(words).await;
            assert!(faults.is_empty(), "{name} {width} dark {dark}: {faults:#?}");
            tab.close().await;
        }
    }

    async fn call(&mut self, session: Option<&str>, method: &str, params: Value) -> Value {
        self.last_id = self.last_id.saturating_add(1);
        let id = self.last_id;
        let mut message = json!({"id": id, "method": method, "params": params});
        if let Some(session) = session {
            message["sessionId"] = json!(session);
        }
        let mut bytes = message.to_string().into_bytes();
        bytes.push(0);
        self.to.write_all(&bytes).await.unwrap();
        self.to.flush().await.unwrap();
        loop {
            let message = self.read(method).await;
            if message["id"] == id {
                assert!(message["error"].is_null(), "{method}: {message}");
                return message["result"].clone();
            }
            self.events.push(message);
        }
    }

    async fn read(&mut self, what: &str) -> Value {
        let mut bytes = Vec::new();
        let read = timeout(PATIENCE, self.from.read_until(0, &mut bytes)).await;
        let read = read.unwrap_or_else(|_| panic!("chromium says nothing of {what}"));
        assert_eq!(
            bytes.pop(),
            Some(0),
            "chromium ended ({read:?}): is it installed?"
        );
        serde_json::from_slice(&bytes).unwrap()
    }

    async fn event(&mut self, session: &str, method: &str) {
        let is_it = |event: &Value| event["sessionId"] == session && event["method"] == method;
        let had = self.events.iter().any(is_it);
        if had {
            return;
        }
        loop {
            let event = self.read(method).await;
            let found = is_it(&event);
            self.events.push(event);
            if found {
                return;
            }
        }
    }
}

// === impl Tab ===

impl Tab<'_> {
    async fn call(&mut self, method: &str, params: Value) -> Value {
        self.browser.call(Some(&self.session), method, params).await
    }

    async fn screen(&mut self, height: u64) {
        let metrics = json!({
            "width": self.width, "height": height, "deviceScaleFactor": 1, "mobile": false,
        });
        self.call("Emulation.setDeviceMetricsOverride", metrics)
            .await;
    }

    /// What an expression comes to on the page.
    pub async fn evaluate(&mut self, expression: &str) -> Value {
        let asked = json!({"expression": expression, "returnByValue": true, "awaitPromise": true});
        let result = self.call("Runtime.evaluate", asked).await;
        assert!(
            result["exceptionDetails"].is_null(),
            "{expression}: {result}"
        );
        result["result"]["value"].clone()
    }

    /// Everything that can be read on the page.
    pub async fn text(&mut self) -> String {
        let text = self.evaluate("document.body.innerText").await;
        text.as_str().unwrap().to_owned()
    }

    /// Waits until the page shows `words`, by itself.
    pub async fn shows(&mut self, words: &str, within: Duration) {
        let deadline = Instant::now().checked_add(within).unwrap();
        loop {
            let text = self.text().await;
            if text.contains(words) {
                return;
            }
            assert!(
                Instant::now() < deadline,
                "no {words:?} on the page:\n{text}"
            );
            tokio::time::sleep(POLL).await;
        }
    }

    /// What is wrong with the page: errors on its console, sideways scroll, text too faint to read, no
    /// verdict, words that are not there.
    pub async fn faults(&mut self, words: &[&str]) -> Vec<String> {
        let mut faults = self.errors();
        let widths = "({has: document.scrollingElement.scrollWidth, may: document.scrollingElement.clientWidth})";
        let widths = self.evaluate(widths).await;
        if widths["has"].as_u64().unwrap() > widths["may"].as_u64().unwrap() {
            faults.push(format!("it scrolls sideways: {widths}"));
        }
        assert!(widths["may"].as_u64().unwrap() <= self.width, "{widths}");
        let faint = self.evaluate(FAINT).await;
        assert!(faint["looked"].as_u64().unwrap() > 0, "nothing to read");
        let each = faint["faint"].as_array().unwrap();
        faults.extend(each.iter().map(|text| format!("too faint: {text}")));
        let text = self.text().await;
        let verdict = self
            .evaluate("document.querySelector('.verdict')?.innerText.trim() ?? ''")
            .await;
        if verdict.as_str().unwrap().is_empty() {
            faults.push("there is no verdict".to_owned());
        }
        let missing = words.iter().filter(|words| !text.contains(**words));
        faults.extend(missing.map(|words| format!("it does not say {words:?}:\n{text}")));
        faults
    }

    /// Errors that the page has caused so far.
    fn errors(&self) -> Vec<String> {
        let ours = |event: &&Value| event["sessionId"] == self.session.as_str();
        let errors = self.browser.events.iter().filter(ours).filter(|event| {
            let params = &event["params"];
            match event["method"].as_str() {
                Some("Runtime.exceptionThrown") => true,
                Some("Runtime.consoleAPICalled") => params["type"] == "error",
                Some("Log.entryAdded") => params["entry"]["level"] == "error",
                _ => false,
            }
        });
        errors.map(|event| event["params"].to_string()).collect()
    }

    /// Keeps a picture of the page, from its top, where somebody wants one.
    pub async fn keep(&mut self, name: &str, dark: bool) {
        let Some(folder) = std::env::var_os(PICTURES).map(PathBuf::from) else {
            return;
        };
        let height = self
            .evaluate("document.documentElement.scrollHeight")
            .await
            .as_u64();
        let height = height.unwrap().min(TALLEST);
        self.screen(height).await;
        let scale = if self.width > 1_000 { 0.625 } else { 1.0 };
        let clip = json!({
            "x": 0, "y": 0, "width": self.width, "height": height.min(KEPT), "scale": scale,
        });
        let shot = json!({"format": "png", "clip": clip});
        let shot = self.call("Page.captureScreenshot", shot).await;
        self.screen(HEIGHT).await;
        let shade = if dark { "dark" } else { "light" };
        let file = folder.join(format!("{name}-{}-{shade}.png", self.width));
        let bytes = base64::engine::general_purpose::STANDARD
            .decode(shot["data"].as_str().unwrap())
            .unwrap();
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(file, bytes).unwrap();
    }

    /// Closes the page.
    pub async fn close(self) {
        let target = json!({"targetId": self.target});
        self.browser.call(None, "Target.closeTarget", target).await;
        let session = self.session;
        self.browser
            .events
            .retain(|event| event["sessionId"] != session.as_str());
    }
}

/// A file as a browser is told of it.
pub fn file_url(file: &Path) -> String {
    format!("file://{}", file.canonicalize().unwrap().display())
}
