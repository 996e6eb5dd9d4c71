//! The API of a cluster for xtask's own needs, through `curl`: no TLS stack is compiled into xtask for a dozen requests.

use super::Cluster;
use anyhow::{Context, Result, bail};
use base64::Engine as _;
use serde_json::Value;
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdout, Command, Stdio};

/// A client with the administrator's certificate.
pub struct Api {
    server: String,
    directory: std::path::PathBuf,
}

/// An answer.
pub struct Answer {
    /// HTTP code.
    pub code: u16,
    /// The body.
    pub body: String,
}

impl Api {
    /// Reads the administrator's kubeconfig and lays its certificates beside it for curl.
    pub fn open(cluster: &Cluster) -> Result<Self> {
        let file = cluster.data().join("admin.kubeconfig");
        let text =
            std::fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
        let config: Value =
            serde_saphyr::from_str(&text).with_context(|| format!("{} is damaged", file.display()))?;
        let directory = cluster.directory().join("admin");
        std::fs::create_dir_all(&directory)?;
        let parts = [
            ("ca", "/clusters/0/cluster/certificate-authority-data"),
            ("cert", "/users/0/user/client-certificate-data"),
            ("key", "/users/0/user/client-key-data"),
        ];
        for (name, pointer) in parts {
            let data = config
                .pointer(pointer)
                .and_then(Value::as_str)
                .with_context(|| format!("{} lacks {pointer}", file.display()))?;
            std::fs::write(
                directory.join(name),
                base64::engine::general_purpose::STANDARD.decode(data.trim())?,
            )?;
        }
        Ok(Self { server: format!("https://127.0.0.1:{}", cluster.port), directory })
    }

    fn curl(&self) -> Command {
        let mut command = Command::new("curl");
        command.args(["--silent", "--show-error", "--noproxy", "*"]);
        for (flag, name) in [("--cacert", "ca"), ("--cert", "cert"), ("--key", "key")] {
            command.arg(flag).arg(self.directory.join(name));
        }
        command
    }

    /// Opens a watch.
    pub fn watch(&self, path: &str) -> Result<Watch> {
        let mut command = self.curl();
        command
            .arg("--no-buffer")
            .arg(format!("{}{path}", self.server))
            .stdin(Stdio::null())
            .stdout(Stdio::piped());
        let mut child = command.spawn().context("cannot start curl")?;
        let stdout = child.stdout.take().context("curl has no standard output")?;
        Ok(Watch { child, lines: BufReader::new(stdout) })
    }

    /// Whether the API server is ready; asked again and again, so it has little time to answer.
    pub fn ready(&self) -> Result<()> {
        let answer = self.call_within("2", "GET", "/readyz", None, "")?;
        match answer.code {
            200 => Ok(()),
            code => bail!("/readyz answers {code}: {}", answer.body),
        }
    }

    /// Sends one request.
    pub fn call(&self, method: &str, path: &str, body: Option<&Value>, content: &str) -> Result<Answer> {
        self.call_within("20", method, path, body, content)
    }

    fn call_within(
        &self,
        seconds: &str,
        method: &str,
        path: &str,
        body: Option<&Value>,
        content: &str,
    ) -> Result<Answer> {
        let mut command = self.curl();
        command.args(["--max-time", seconds, "--request", method, "--write-out", "\n%{http_code}"]);
        if body.is_some() {
            command.args(["--header", &format!("Content-Type: {content}"), "--data-binary", "@-"]);
        }
        command
            .arg(format!("{}{path}", self.server))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().context("cannot start curl")?;
        let mut stdin = child.stdin.take().context("curl has no standard input")?;
        if let Some(body) = body {
            stdin.write_all(&serde_json::to_vec(body)?)?;
        }
        drop(stdin);
        let out = child.wait_with_output()?;
        if !out.status.success() {
            bail!("{method} {path}: {}", String::from_utf8_lossy(&out.stderr).trim());
        }
        let text = String::from_utf8_lossy(&out.stdout);
        let (body, code) = text.rsplit_once('\n').context("curl printed no code")?;
        Ok(Answer { code: code.trim().parse()?, body: body.to_owned() })
    }

    /// Reads one object or list.
    pub fn get(&self, path: &str) -> Result<Value> {
        let answer = self.call("GET", path, None, "")?;
        match answer.code {
            200 => serde_json::from_str(&answer.body).with_context(|| format!("GET {path}: not JSON")),
            code => bail!("GET {path}: {code}: {}", answer.body),
        }
    }

    /// Creates an object; one that is already there stays as it is.
    pub fn ensure(&self, collection: &str, object: &Value) -> Result<Value> {
        let answer = self.call("POST", collection, Some(object), "application/json")?;
        let name = object["metadata"]["name"].as_str().unwrap_or_default();
        match answer.code {
            200..=202 => Ok(serde_json::from_str(&answer.body)?),
            409 => self.get(&format!("{collection}/{name}")),
            code => bail!("POST {collection} {name}: {code}: {}", answer.body),
        }
    }
}

/// A running watch; ends with it.
pub struct Watch {
    child: Child,
    lines: BufReader<ChildStdout>,
}

impl Watch {
    /// The next event; none when the server ended the watch.
    pub fn next_event(&mut self) -> Result<Option<Value>> {
        let mut line = String::new();
        if self.lines.read_line(&mut line)? == 0 {
            return Ok(None);
        }
        serde_json::from_str(&line).map(Some).context("a watch event is not JSON")
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        // Ended already is fine; either way it is waited for.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
