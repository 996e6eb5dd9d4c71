//! How deep the stacks of the programs get, counted in the object as the verifier counts it: of each function the lowest place it uses,
//! rounded up, and of all chains of calls the deepest.
//!
//! Must not know: what the functions do.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context as _, Result, bail, ensure};
use pagurus_ebpf_abi::programs;

/// All that a program and the functions it calls may use together.
const LIMIT: u32 = 512;
/// What the verifier rounds each function's up to.
const STEP: u32 = 32;

/// The register that points behind the end of a function's stack.
const FRAME: u8 = 10;
/// `R_BPF_64_32`: a call.
const RELOCATION_CALL: u32 = 10;

/// A part of an ELF file.
struct Section {
    name: String,
    kind: u32,
    info: u32,
    bytes: Vec<u8>,
}

/// A function: the section it is in, its place there, its length.
struct Function {
    name: String,
    section: usize,
    at: u64,
    length: u64,
}

fn word<const N: usize>(bytes: &[u8], at: usize) -> Result<[u8; N]> {
    bytes
        .get(at..at + N)
        .and_then(|bytes| bytes.try_into().ok())
        .with_context(|| format!("no {N} bytes at {at}"))
}

fn u16_at(bytes: &[u8], at: usize) -> Result<usize> {
    Ok(u16::from_le_bytes(word(bytes, at)?).into())
}

fn u32_at(bytes: &[u8], at: usize) -> Result<u32> {
    Ok(u32::from_le_bytes(word(bytes, at)?))
}

fn u64_at(bytes: &[u8], at: usize) -> Result<usize> {
    Ok(usize::try_from(u64::from_le_bytes(word(bytes, at)?))?)
}

fn text(bytes: &[u8], at: usize) -> String {
    let rest = bytes.get(at..).unwrap_or_default();
    String::from_utf8_lossy(rest.split(|byte| *byte == 0).next().unwrap_or_default()).into_owned()
}

fn sections(file: &[u8]) -> Result<Vec<Section>> {
    let (at, size, count, names) =
        (u64_at(file, 0x28)?, u16_at(file, 0x3a)?, u16_at(file, 0x3c)?, u16_at(file, 0x3e)?);
    let mut found = Vec::new();
    let mut places = Vec::new();
    for number in 0..count {
        let header = file.get(at + number * size..).context("section headers")?;
        let (kind, from, length) = (u32_at(header, 4)?, u64_at(header, 0x18)?, u64_at(header, 0x20)?);
        // SHT_NOBITS has nothing in the file.
        let bytes = if kind == 8 { &[][..] } else { file.get(from..from + length).context("a section")? };
        places.push(u32_at(header, 0)? as usize);
        found.push(Section { name: String::new(), kind, info: u32_at(header, 0x2c)?, bytes: bytes.to_vec() });
    }
    let strings = found.get(names).context("names of sections")?.bytes.clone();
    for (section, place) in found.iter_mut().zip(places) {
        section.name = text(&strings, place);
    }
    Ok(found)
}

/// Every symbol: its name, whether it is a function, its section, place and length.
fn symbols(sections: &[Section]) -> Result<Vec<(bool, Function)>> {
    let table = sections.iter().find(|section| section.kind == 2).context("no symbols")?;
    let names = sections.iter().find(|section| section.name == ".strtab").context("no names of symbols")?;
    let entry = |bytes: &[u8]| -> Result<(bool, Function)> {
        let name = text(&names.bytes, u32_at(bytes, 0)? as usize);
        let function = Function {
            name,
            section: u16_at(bytes, 6)?,
            at: u64_at(bytes, 8)? as u64,
            length: u64_at(bytes, 16)? as u64,
        };
        Ok((bytes[4] & 0xf == 2, function))
    };
    table.bytes.chunks_exact(24).map(entry).collect()
}

/// How much of its stack a function uses, and whom it calls.
fn body(
    sections: &[Section],
    symbols: &[(bool, Function)],
    function: &Function,
) -> Result<(u32, Vec<(usize, u64)>)> {
    let code = &sections[function.section].bytes;
    let calls = sections
        .iter()
        .find(|section| section.kind == 9 && section.info as usize == function.section)
        .map(|section| section.bytes.as_slice())
        .unwrap_or_default();
    // Which registers are places in the stack, and which.
    let mut places: [Option<i64>; 11] = [None; 11];
    let (mut deepest, mut called) = (0, Vec::new());
    let mut at = function.at;
    while at < function.at + function.length {
        let place = at as usize;
        let [kind, registers, ..] = word::<8>(code, place)?;
        let offset = i64::from(i16::from_le_bytes(word(code, place + 2)?));
        let number = i64::from(i32::from_le_bytes(word(code, place + 4)?));
        let (to, from) = (registers & 0xf, registers >> 4);
        places[usize::from(FRAME)] = Some(0);
        let mut uses = |base: u8, more: i64| {
            if let Some(place) = places[usize::from(base)] {
                deepest = deepest.min(place + more);
            }
        };
        match kind & 7 {
            1 => uses(from, offset),
            2 | 3 => uses(to, offset),
            _ => {}
        }
        match kind {
            // A 64-bit register gets another's value, or something is added to it.
            0xbf => {
                places[usize::from(to)] = places[usize::from(from)];
                uses_place(&places, to, &mut deepest);
            }
            0x07 => {
                places[usize::from(to)] = places[usize::from(to)].map(|place| place + number);
                uses_place(&places, to, &mut deepest);
            }
            0x85 => {
                if from == 1 {
                    called.push(target(calls, symbols, function.section, at, number)?);
                }
                places[..6].fill(None);
            }
            _ if matches!(kind & 7, 0 | 1 | 4 | 7) => places[usize::from(to)] = None,
            _ => {}
        }
        // A constant of 64 bits takes two.
        at += if kind == 0x18 { 16 } else { 8 };
    }
    Ok((u32::try_from(-deepest)?, called))
}

fn uses_place(places: &[Option<i64>; 11], register: u8, deepest: &mut i64) {
    if let Some(place) = places[usize::from(register)] {
        *deepest = (*deepest).min(place);
    }
}

/// Section and place of the function that is called.
fn target(
    calls: &[u8],
    symbols: &[(bool, Function)],
    section: usize,
    at: u64,
    number: i64,
) -> Result<(usize, u64)> {
    for relocation in calls.chunks_exact(16) {
        if u64_at(relocation, 0)? as u64 == at && u32_at(relocation, 8)? == RELOCATION_CALL {
            let (_, symbol) = symbols.get(u32_at(relocation, 12)? as usize).context("no such symbol")?;
            return Ok((symbol.section, symbol.at.wrapping_add_signed((number + 1) * 8)));
        }
    }
    Ok((section, at.wrapping_add_signed((number + 1) * 8)))
}

/// The depth of each program's stack, with all that it calls, and the chain of calls that is so deep.
fn depths(path: &Path) -> Result<Vec<(&'static str, u32, String)>> {
    let file = std::fs::read(path).with_context(|| path.display().to_string())?;
    let sections = sections(&file)?;
    let symbols = symbols(&sections)?;
    let mut functions = Functions::new();
    for (_, function) in symbols.iter().filter(|(is_function, _)| *is_function) {
        let (own, calls) = body(&sections, &symbols, function)?;
        functions.insert((function.section, function.at), Frame { name: function.name.clone(), own, calls });
    }
    let mut found = Vec::new();
    for name in programs::PACKET.into_iter().chain([programs::XDP_OUTSIDE]) {
        let (_, function) = symbols
            .iter()
            .find(|(is_function, symbol)| *is_function && symbol.name == name)
            .with_context(|| format!("no function {name}"))?;
        let (depth, chain) = depth(&functions, (function.section, function.at), 0)?;
        found.push((name, depth, chain));
    }
    Ok(found)
}

/// A function's part of a stack.
struct Frame {
    name: String,
    own: u32,
    calls: Vec<(usize, u64)>,
}

/// All of them, by section and place.
type Functions = BTreeMap<(usize, u64), Frame>;

/// The deepest chain of calls that begins with a function, and its names.
fn depth(functions: &Functions, key: (usize, u64), level: u32) -> Result<(u32, String)> {
    // The kernel allows no more calls in each other.
    ensure!(level < 8, "calls are {level} deep");
    let Some(frame) = functions.get(&key) else { bail!("a call of no function: {key:?}") };
    let own = frame.own.max(1).next_multiple_of(STEP);
    let mut below = (0, String::new());
    for call in &frame.calls {
        below = below.max(depth(functions, *call, level + 1)?);
    }
    let (depth, chain) = below;
    Ok((own + depth, format!(" {} {own}{chain}", frame.name)))
}

#[test]
fn has_room() -> Result<()> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/bpf/pagurus-ebpf.o");
    if !path.exists() {
        println!("SKIPPED: {} was not built", path.display());
        return Ok(());
    }
    for (name, depth, chain) in depths(&path)? {
        println!("{name}: {depth} bytes of stack:{chain}");
        ensure!(depth > STEP, "{name}: {depth} bytes: its calls were not seen");
        ensure!(depth < LIMIT, "{name}: {depth} bytes of stack, fewer than {LIMIT} are wanted");
    }
    Ok(())
}
