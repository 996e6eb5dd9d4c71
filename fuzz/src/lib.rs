//! What the fuzz targets share: which target a program is, and its seeds. What must hold is said in `controlplane/invariants`.

use pagurus_controlplane_invariants as invariants;
use std::path::PathBuf;
use std::sync::OnceLock;

/// The target of this process.
static TARGET: OnceLock<&invariants::Target> = OnceLock::new();

/// The folder for seeds: those of a target come to `seeds/TARGET`, the words of the API to `words`. Without it nothing is written.
const FOLDER: &str = "PAGURUS_FUZZ_FOLDER";

/// Makes this process that of a target, before libFuzzer reads its corpus.
///
/// # Panics
/// There is no such target, or the seeds cannot be written.
pub fn begin(name: &str) {
    let target = TARGET.get_or_init(|| invariants::target(name));
    if let Some(folder) = std::env::var_os(FOLDER).map(PathBuf::from) {
        let written =
            invariants::write_seeds(target, &folder.join("seeds").join(name), &folder.join("words"));
        written.expect("the seeds can be written");
    }
}

/// Runs the target.
pub fn run(data: &[u8]) {
    if let Some(target) = TARGET.get() {
        (target.run)(data);
    }
}
