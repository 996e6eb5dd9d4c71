//! A witness of readiness: `kubectl get -w` beside a test, which afterwards says everything it saw that was not Ready. For what is
//! wrong only for a moment, which asking now and then does not find.

use crate::cluster::{Cluster, is_ready};
use anyhow::{Context, Result, bail};
use serde_json::Value;
use std::process::{Child, Stdio};

/// Watches objects of one kind until it is asked.
pub struct Witness<'a> {
    cluster: &'a Cluster,
    child: Child,
    seen: tempfile::NamedTempFile,
    objects: Vec<String>,
}

impl<'a> Witness<'a> {
    /// Begins to watch: `["nodes"]`, `["-n", NAMESPACE, "-l=LABEL", "pods"]`. Everything that is there now must be ready; it is seen when this returns.
    ///
    /// # Errors
    /// kubectl does not start, or says nothing.
    pub fn of(cluster: &'a Cluster, objects: &[&str]) -> Result<Self> {
        let seen = tempfile::NamedTempFile::new()?;
        let child = cluster
            .command(&["get", "--watch", "--output=json"])?
            .args(objects)
            .stdout(seen.reopen()?)
            .stderr(Stdio::null())
            .spawn()
            .context("cannot start kubectl")?;
        let this =
            Self { cluster, child, seen, objects: objects.iter().map(|word| (*word).to_owned()).collect() };
        cluster.wait("the watch has begun", 20, |_| Ok(!this.objects()?.is_empty()))?;
        Ok(this)
    }

    /// Everything seen so far, the last of which may be incomplete.
    fn objects(&self) -> Result<Vec<Value>> {
        let text = std::fs::read_to_string(self.seen.path())?;
        Ok(serde_json::Deserializer::from_str(&text).into_iter::<Value>().map_while(Result::ok).collect())
    }

    /// Ends the watch, once it has seen a last change that is made for it to one of its objects. An error names everything that was not
    /// ready at some moment.
    ///
    /// # Errors
    /// Something was not ready, or the watch has broken.
    pub fn all_was_ready(mut self) -> Result<()> {
        let words: Vec<&str> = self.objects.iter().map(String::as_str).collect();
        let list = self.cluster.get(&words)?;
        let name =
            list["items"][0]["metadata"]["name"].as_str().context("nothing is left to watch")?.to_owned();
        let mark = format!("pagurus.test/seen={}", std::process::id());
        let annotate = |mark: &str| {
            let (kind, scope) = words.split_last().context("no kind to watch")?;
            let mut all: Vec<&str> = scope.iter().copied().filter(|word| !word.starts_with("-l")).collect();
            all.extend(["annotate", "--overwrite", kind, &name, mark]);
            self.cluster.ok(&all)
        };
        annotate(&mark)?;
        let wait = self.cluster.wait("the watch has seen the last change", 20, |_| {
            let marked = |o: &Value| {
                o["metadata"]["annotations"]["pagurus.test/seen"] == std::process::id().to_string().as_str()
            };
            Ok(self.objects()?.iter().any(marked))
        });
        annotate("pagurus.test/seen-")?;
        wait?;
        let unready: Vec<String> = self
            .objects()?
            .iter()
            .filter(|object| !is_ready(object))
            .map(|object| {
                format!(
                    "{} at {}: {}",
                    object["metadata"]["name"],
                    object["metadata"]["resourceVersion"],
                    object["status"]["conditions"]
                )
            })
            .collect();
        self.child.kill()?;
        if !unready.is_empty() {
            bail!("not ready for a moment:\n{}", unready.join("\n"));
        }
        Ok(())
    }
}

impl Drop for Witness<'_> {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
