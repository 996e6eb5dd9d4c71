//! The place of a value in its document, for messages. It must not know what the values are.

/// One step down.
#[derive(Debug, Clone)]
enum Step<'t> {
    Known(&'t str),
    Key(String),
    Index(usize),
}

/// A path from the root to the value being looked at.
#[derive(Debug, Default, Clone)]
pub(crate) struct Path<'t> {
    steps: Vec<Step<'t>>,
}

impl<'t> Path<'t> {
    pub(crate) fn push_field(&mut self, name: &'t str) {
        self.steps.push(Step::Known(name));
    }

    pub(crate) fn push_key(&mut self, key: &str) {
        self.steps.push(Step::Key(key.to_owned()));
    }

    pub(crate) fn push_index(&mut self, index: usize) {
        self.steps.push(Step::Index(index));
    }

    pub(crate) fn pop(&mut self) {
        self.steps.pop();
    }

    /// The path of a child, written as `spec.containers[0].name`.
    pub(crate) fn child(&self, name: &str) -> String {
        let mut out = String::new();
        for step in &self.steps {
            match step {
                Step::Known(name) => append(&mut out, name),
                Step::Key(key) => append(&mut out, key),
                Step::Index(index) => out.push_str(&format!("[{index}]")),
            }
        }
        append(&mut out, name);
        out
    }
}

fn append(out: &mut String, name: &str) {
    if !out.is_empty() {
        out.push('.');
    }
    out.push_str(name);
}
