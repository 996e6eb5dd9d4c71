//! BPF objects made of the one that is built: such that do the same and are others all the same, and such that no kernel takes. The ELF
//! file is edited in place, so that nothing in it moves.
//!
//! Must not know: what the programs do.

use anyhow::{Context as _, Result, ensure};

/// `mov64` and `mov32` of a value, and `exit`.
const MOV64: u8 = 0xb7;
const MOV32: u8 = 0xb4;
const EXIT: [u8; 8] = [0x95, 0, 0, 0, 0, 0, 0, 0];
/// `SHF_EXECINSTR`.
const EXECUTABLE: usize = 4;

/// A section with instructions, and where they are.
struct Section {
    name: String,
    code: std::ops::Range<usize>,
}

/// A number in the machine's order.
fn number(object: &[u8], at: usize, bytes: usize) -> Result<usize> {
    let found = object.get(at..at + bytes).context("the object ends")?;
    Ok(found.iter().rev().fold(0, |sum, byte| sum << 8 | usize::from(*byte)))
}

/// The sections with instructions in them.
fn sections(object: &[u8]) -> Result<Vec<Section>> {
    // The ELF header: where the table of sections is, the size of a row, how many, which has the names.
    let (table, row) = (number(object, 0x28, 8)?, number(object, 0x3a, 2)?);
    let (count, names) = (number(object, 0x3c, 2)?, number(object, 0x3e, 2)?);
    let names = number(object, table + names * row + 0x18, 8)?;
    let mut all = Vec::new();
    for at in (0..count).map(|place| table + place * row) {
        if number(object, at + 8, 8)? & EXECUTABLE == 0 {
            continue;
        }
        let name = object.get(names + number(object, at, 4)?..).context("a name outside of the object")?;
        let name = name.split(|byte| *byte == 0).next().unwrap_or_default();
        let code = number(object, at + 0x18, 8)?;
        let code = code..code + number(object, at + 0x20, 8)?;
        ensure!(code.end <= object.len(), "a section outside of the object");
        all.push(Section { name: String::from_utf8_lossy(name).into_owned(), code });
    }
    Ok(all)
}

/// The programs with nonsense where a section of them begins.
///
/// # Errors
/// There is no such section.
pub fn broken(object: &[u8], section: &str) -> Result<Vec<u8>> {
    let found = sections(object)?.into_iter().find(|found| found.name == section && !found.code.is_empty());
    let code = found.with_context(|| format!("no section {section}"))?.code;
    let mut object = object.to_vec();
    // With no value to return.
    object[code.start..code.start + EXIT.len()].copy_from_slice(&EXIT);
    Ok(object)
}

/// Programs that do the same by other instructions: small values are put into registers by the instruction for half of a register,
/// which clears the other half.
///
/// # Errors
/// This is no object.
pub fn rewritten(object: &[u8]) -> Result<Vec<u8>> {
    let mut made = object.to_vec();
    for section in sections(object)? {
        // The second half of a long instruction begins with 0.
        for instruction in made[section.code].chunks_exact_mut(EXIT.len()) {
            let is_small = instruction[7] & 0x80 == 0;
            if instruction[0] == MOV64 && is_small {
                instruction[0] = MOV32;
            }
        }
    }
    ensure!(made != object, "nothing to rewrite");
    Ok(made)
}
