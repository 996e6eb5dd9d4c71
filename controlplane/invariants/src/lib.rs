//! What must hold for any bytes that come from outside: one target per decoder, parser and patch.
//!
//! A target takes bytes and panics if something does not hold; that the code under it does not panic is the first thing that must.
//! `fuzz/` runs the targets under libFuzzer (`cargo xtask test --fuzz`); the tests here run them over their seeds and over simple
//! changes of these. The seeds are made from the type table. It must not know of libFuzzer.

mod codecs;
mod expressions;
mod grammars;
mod kinds;
mod log;
mod ownership;
mod patches;
mod requests;
mod same;
mod sample;
mod schemas;
mod words;

use std::path::Path;

/// One decoder and what must hold for it.
#[derive(Debug)]
pub struct Target {
    /// The name of the fuzz target.
    pub name: &'static str,
    /// Panics if something does not hold for these bytes.
    pub run: fn(&[u8]),
    /// Inputs that are mostly well formed.
    pub seeds: fn() -> Vec<Vec<u8>>,
}

/// Every target.
pub const TARGETS: &[Target] = &[
    Target { name: "json", run: codecs::json, seeds: codecs::json_seeds },
    Target { name: "yaml", run: codecs::yaml, seeds: codecs::yaml_seeds },
    Target { name: "protobuf", run: codecs::protobuf, seeds: codecs::protobuf_seeds },
    Target { name: "cbor", run: codecs::cbor, seeds: codecs::cbor_seeds },
    Target { name: "json_patch", run: patches::json_patch, seeds: patches::json_patch_seeds },
    Target { name: "merge_patch", run: patches::merge_patch, seeds: patches::merge_patch_seeds },
    Target { name: "strategic_patch", run: patches::strategic, seeds: patches::strategic_seeds },
    Target { name: "apply", run: ownership::apply, seeds: ownership::apply_seeds },
    Target { name: "managed_fields", run: ownership::managed_fields, seeds: ownership::managed_seeds },
    Target { name: "label_selector", run: words::label_selector, seeds: words::label_selector_seeds },
    Target { name: "field_selector", run: words::field_selector, seeds: words::field_selector_seeds },
    Target { name: "quantity", run: words::quantity, seeds: words::quantity_seeds },
    Target { name: "names", run: words::names, seeds: words::names_seeds },
    Target { name: "request", run: requests::request, seeds: requests::request_seeds },
    Target { name: "accept", run: requests::accept, seeds: requests::accept_seeds },
    Target { name: "store_log", run: log::store_log, seeds: log::store_log_seeds },
    Target { name: "regexp", run: grammars::regexp, seeds: grammars::regexp_seeds },
    Target { name: "json_path", run: grammars::json_path, seeds: grammars::json_path_seeds },
    Target { name: "continue_token", run: grammars::continue_token, seeds: grammars::continue_token_seeds },
    Target { name: "bearer_token", run: grammars::bearer_token, seeds: grammars::bearer_token_seeds },
    Target { name: "schema", run: schemas::schema, seeds: schemas::schema_seeds },
    Target { name: "definition", run: schemas::definition, seeds: schemas::definition_seeds },
    Target { name: "kind", run: kinds::kind, seeds: kinds::kind_seeds },
    Target { name: "schedule", run: kinds::schedule, seeds: kinds::schedule_seeds },
    Target { name: "expression", run: expressions::expression, seeds: expressions::expression_seeds },
];

/// The target of this name.
///
/// # Panics
/// There is none.
pub fn target(name: &str) -> &'static Target {
    let found = TARGETS.iter().find(|target| target.name == name);
    found.unwrap_or_else(|| panic!("there is no target {name:?}"))
}

/// Writes the seeds of a target, a file each, and beside them a dictionary of the API's words (libFuzzer's `-dict`).
///
/// # Errors
/// A file cannot be written.
pub fn write_seeds(target: &Target, directory: &Path, dictionary: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(directory)?;
    for (at, seed) in (target.seeds)().iter().enumerate() {
        std::fs::write(directory.join(format!("seed-{at:03}")), seed)?;
    }
    std::fs::write(dictionary, sample::dictionary())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes out of nothing (xorshift64).
    struct Random(u64);

    impl Random {
        fn below(&mut self, limit: usize) -> usize {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            (self.0 % limit.max(1) as u64) as usize
        }
    }

    /// A seed with a few places changed: bits, cut and doubled parts.
    fn changed(seed: &[u8], random: &mut Random) -> Vec<u8> {
        let mut bytes = seed.to_vec();
        for _ in 0..=random.below(4) {
            let (from, to) = (random.below(bytes.len()), random.below(bytes.len() + 1));
            match random.below(4) {
                0 if !bytes.is_empty() => bytes[from] ^= 1 << random.below(8),
                1 if from < to => drop(bytes.drain(from..to)),
                2 if from < to && bytes.len() < 1 << 16 => bytes.extend_from_within(from..to),
                _ => bytes.insert(from, b"\"{}[],:\0-9a"[random.below(11)]),
            }
        }
        bytes
    }

    /// `PAGURUS_INVARIANT_ROUNDS` neighbours of each seed, and `PAGURUS_INVARIANT_TARGET` alone, where somebody wants more.
    #[test]
    fn seeds_and_their_neighbours() {
        let rounds = std::env::var("PAGURUS_INVARIANT_ROUNDS").ok().and_then(|n| n.parse().ok());
        let rounds: usize = rounds.unwrap_or(5);
        let only = std::env::var("PAGURUS_INVARIANT_TARGET").ok();
        for target in TARGETS.iter().filter(|target| only.as_ref().is_none_or(|only| target.name == only)) {
            let seeds = (target.seeds)();
            assert!(seeds.len() > 2, "{} has seeds", target.name);
            let run = |bytes: &[u8]| {
                let told = std::panic::catch_unwind(|| (target.run)(bytes));
                assert!(told.is_ok(), "target {}: {:?}", target.name, String::from_utf8_lossy(bytes));
            };
            run(b"");
            for (at, seed) in seeds.iter().enumerate() {
                run(seed);
                let mut random = Random(at as u64 + 1);
                let rounds = if target.name == "store_log" { rounds.div_ceil(2) } else { rounds };
                for _ in 0..rounds {
                    run(&changed(seed, &mut random));
                }
            }
        }
    }

    #[test]
    fn every_target_is_one_of_cargo_fuzz() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/fuzz_targets");
        let mut files: Vec<String> = std::fs::read_dir(folder)
            .expect("the folder of fuzz targets")
            .map(|entry| {
                entry.expect("an entry").path().file_stem().expect("a name").to_string_lossy().into_owned()
            })
            .collect();
        files.sort();
        let mut names: Vec<&str> = TARGETS.iter().map(|target| target.name).collect();
        names.sort_unstable();
        assert_eq!(files, names);
    }
}
