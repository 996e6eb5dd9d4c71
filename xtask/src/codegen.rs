//! `cargo xtask codegen --spec DIR`: makes the committed type table from the published facts of the API.
//!
//! Reads the facts (messages with tags and markers), the kinds, discovery, table columns and the OpenAPI document, and
//! writes one text that `pagurus-controlplane-schema` reads at run time. Same input, same text. No prose goes in.

mod bootstrap;
mod message;
mod openapi;
mod presence;
mod served;
mod source;
mod validation;

use std::fmt::Write as _;
use std::path::PathBuf;

use anyhow::Context as _;

use message::{FieldOut, TypeOut};
use source::Spec;

/// Arguments of `codegen`.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// Folder with facts-v*.json, kinds-v*.json, discovery-v*.json, columns-v*.json and openapi-v*.json.gz
    #[arg(long, value_name = "DIR")]
    pub spec: PathBuf,
    /// API version, part of the file names
    #[arg(long, default_value = "1.37")]
    pub version: String,
    /// Recorded requests, whose validate.jsonl becomes the tables of validation
    #[arg(long, value_name = "DIR")]
    pub cases: Option<PathBuf>,
    /// Where the table goes; by default its place in the source tree
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
}

/// Makes the table.
pub fn run(options: &Options) -> anyhow::Result<()> {
    let spec = Spec::read(&options.spec, &options.version)?;
    let text = render(&spec, &options.version)?;
    let out = options.out.clone().unwrap_or_else(|| {
        let name = format!("v{}.txt", options.version.replace('.', "_"));
        PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../controlplane/schema/src/table").join(name)
    });
    std::fs::write(&out, &text).with_context(|| format!("write {}", out.display()))?;
    println!("wrote {}: {} lines, {} bytes", out.display(), text.lines().count(), text.len());
    if options.out.is_none() {
        let name = format!("v{}.json", options.version.replace('.', "_"));
        let out = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
            .join("../controlplane/apiserver/src/bootstrap")
            .join(name);
        bootstrap::write(&options.spec, &options.version, &out)?;
        openapi::write(&spec, &options.version)?;
    }
    if let Some(cases) = &options.cases {
        let out = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
            .join("../controlplane/apiserver/src/resources/validation");
        validation::write(&cases.join("validate.jsonl"), &out)?;
    }
    Ok(())
}

fn render(spec: &Spec, version: &str) -> anyhow::Result<String> {
    let mut text = format!("V\t1\t{version}\n");
    let mut package = String::new();
    for t in message::types(spec)? {
        if t.package != package {
            writeln!(text, "P\t{}", t.package)?;
            package.clone_from(&t.package);
        }
        render_type(&mut text, &t)?;
    }
    served::render(spec, &mut text)?;
    Ok(text)
}

fn render_type(text: &mut String, t: &TypeOut) -> anyhow::Result<()> {
    writeln!(text, "T\t{}\t{}\t{}", t.name, if t.atomic { "a" } else { "" }, t.kind)?;
    for (name, field) in &t.fields {
        write!(text, "F\t{name}\t{}\t{}", short_reference(&field.kind, &t.package), field.flags)?;
        render_attributes(text, field)?;
        text.push('\n');
    }
    Ok(())
}

/// A reference into the same package is written without the package.
fn short_reference(kind: &str, package: &str) -> String {
    kind.replacen(&format!("{package}."), "", 1)
}

fn render_attributes(text: &mut String, field: &FieldOut) -> anyhow::Result<()> {
    if !field.tags.is_empty() {
        let tags: Vec<String> = field.tags.iter().map(u64::to_string).collect();
        write!(text, "\tt={}", tags.join("."))?;
    }
    if !field.map_keys.is_empty() {
        write!(text, "\tk={}", field.map_keys.join(","))?;
    }
    if let Some(key) = &field.merge_key {
        write!(text, "\tM={key}")?;
    }
    if let Some(default) = &field.default {
        write!(text, "\td={default}")?;
    }
    if let Some(name) = &field.go_type {
        write!(text, "\tn={name}")?;
    }
    if !field.embedded.is_empty() {
        write!(text, "\ti={}", field.embedded.join(","))?;
    }
    if !field.enum_values.is_empty() {
        write!(text, "\tv={}", field.enum_values.join(","))?;
    }
    Ok(())
}
