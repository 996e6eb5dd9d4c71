//! The difference of two texts, line by line, in the unified form with three lines around each change.
//!
//! Which lines count as unchanged when several choices are possible is decided as the API's server does it: by the longest
//! matching block, then the same to the left and to the right of it, leaving out lines that occur too often in long texts.

use std::collections::HashMap;
use std::fmt::Write as _;

const AROUND: usize = 3;
/// From so many lines on, lines that occur often do not start a match.
const LONG: usize = 200;

/// A piece of both texts: old lines `i1..i2` and new lines `j1..j2`, equal or not.
#[derive(Debug, Clone, Copy)]
struct Piece {
    equal: bool,
    i1: usize,
    i2: usize,
    j1: usize,
    j2: usize,
}

/// The hunks that lead from `old` to `new`; empty if the texts are equal.
pub(crate) fn unified(old: &str, new: &str) -> String {
    let (old, new): (Vec<&str>, Vec<&str>) = (old.lines().collect(), new.lines().collect());
    let mut out = String::new();
    for group in groups(pieces(&old, &new)) {
        hunk(&mut out, &group, &old, &new);
    }
    out
}

fn hunk(out: &mut String, group: &[Piece], old: &[&str], new: &[&str]) {
    let (Some(first), Some(last)) = (group.first(), group.last()) else { return };
    let range = |start: usize, end: usize| match end - start {
        1 => (start + 1).to_string(),
        0 => format!("{start},0"),
        length => format!("{},{length}", start + 1),
    };
    // Writing to a String cannot fail.
    let _ = writeln!(out, "@@ -{} +{} @@", range(first.i1, last.i2), range(first.j1, last.j2));
    for piece in group {
        let (removed, added) = (&old[piece.i1..piece.i2], &new[piece.j1..piece.j2]);
        let lines =
            |sign: char, lines: &[&str]| lines.iter().map(|l| format!("{sign}{l}\n")).collect::<String>();
        if piece.equal {
            out.push_str(&lines(' ', removed));
        } else {
            out.push_str(&lines('-', removed));
            out.push_str(&lines('+', added));
        }
    }
}

/// The pieces in groups of changes that lie close together, with the lines around them.
fn groups(mut pieces: Vec<Piece>) -> Vec<Vec<Piece>> {
    if !pieces.iter().any(|p| !p.equal) {
        return Vec::new();
    }
    if let Some(first) = pieces.first_mut().filter(|p| p.equal) {
        first.i1 = first.i1.max(first.i2.saturating_sub(AROUND));
        first.j1 = first.j1.max(first.j2.saturating_sub(AROUND));
    }
    if let Some(last) = pieces.last_mut().filter(|p| p.equal) {
        last.i2 = last.i2.min(last.i1 + AROUND);
        last.j2 = last.j2.min(last.j1 + AROUND);
    }
    let (mut out, mut group) = (Vec::new(), Vec::new());
    for mut piece in pieces {
        if piece.equal && piece.i2 - piece.i1 > 2 * AROUND {
            let head =
                Piece { i2: piece.i2.min(piece.i1 + AROUND), j2: piece.j2.min(piece.j1 + AROUND), ..piece };
            group.push(head);
            out.push(std::mem::take(&mut group));
            piece.i1 = piece.i1.max(piece.i2.saturating_sub(AROUND));
            piece.j1 = piece.j1.max(piece.j2.saturating_sub(AROUND));
        }
        group.push(piece);
    }
    if group.iter().any(|p| !p.equal) {
        out.push(group);
    }
    out
}

fn pieces(old: &[&str], new: &[&str]) -> Vec<Piece> {
    let mut at: HashMap<&str, Vec<usize>> = HashMap::new();
    for (j, line) in new.iter().enumerate() {
        at.entry(line).or_default().push(j);
    }
    if new.len() >= LONG {
        let often = new.len() / 100 + 1;
        at.retain(|_, places| places.len() <= often);
    }
    let mut blocks = Vec::new();
    let mut open = vec![(0, old.len(), 0, new.len())];
    while let Some((alo, ahi, blo, bhi)) = open.pop() {
        let (i, j, size) = longest(old, new, &at, (alo, ahi, blo, bhi));
        if size > 0 {
            blocks.push((i, j, size));
            open.push((alo, i, blo, j));
            open.push((i + size, ahi, j + size, bhi));
        }
    }
    blocks.sort_unstable();
    blocks.push((old.len(), new.len(), 0));
    let mut out: Vec<Piece> = Vec::new();
    let (mut i, mut j) = (0, 0);
    for (bi, bj, size) in blocks {
        if i < bi || j < bj {
            out.push(Piece { equal: false, i1: i, i2: bi, j1: j, j2: bj });
        }
        if size > 0 {
            match out.last_mut().filter(|p| p.equal && p.i2 == bi && p.j2 == bj) {
                Some(last) => (last.i2, last.j2) = (bi + size, bj + size),
                None => out.push(Piece { equal: true, i1: bi, i2: bi + size, j1: bj, j2: bj + size }),
            }
        }
        (i, j) = (bi + size, bj + size);
    }
    out
}

/// The longest block of equal lines within bounds; of several, the one that starts first.
fn longest(
    old: &[&str],
    new: &[&str],
    at: &HashMap<&str, Vec<usize>>,
    (alo, ahi, blo, bhi): (usize, usize, usize, usize),
) -> (usize, usize, usize) {
    let (mut best_i, mut best_j, mut best) = (alo, blo, 0);
    let mut lengths: HashMap<usize, usize> = HashMap::new();
    for (i, line) in old.iter().enumerate().take(ahi).skip(alo) {
        let mut next = HashMap::new();
        for &j in at.get(line).map_or(&[][..], Vec::as_slice) {
            if j < blo {
                continue;
            }
            if j >= bhi {
                break;
            }
            let length = j.checked_sub(1).and_then(|before| lengths.get(&before)).copied().unwrap_or(0) + 1;
            next.insert(j, length);
            if length > best {
                (best_i, best_j, best) = (i + 1 - length, j + 1 - length, length);
            }
        }
        lengths = next;
    }
    while best_i > alo && best_j > blo && old[best_i - 1] == new[best_j - 1] {
        (best_i, best_j, best) = (best_i - 1, best_j - 1, best + 1);
    }
    while best_i + best < ahi && best_j + best < bhi && old[best_i + best] == new[best_j + best] {
        best += 1;
    }
    (best_i, best_j, best)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hunks() {
        let text = |changed: &[(usize, &str)]| {
            let lines: Vec<String> = (0..20)
                .map(|i| {
                    changed.iter().find(|(n, _)| *n == i).map_or(i.to_string(), |(_, t)| (*t).to_owned())
                })
                .collect();
            lines.join("\n")
        };
        assert_eq!(unified(&text(&[]), &text(&[])), "");
        assert_eq!(
            unified(&text(&[]), &text(&[(4, "x")])),
            "@@ -2,7 +2,7 @@\n 1\n 2\n 3\n-4\n+x\n 5\n 6\n 7\n"
        );
        assert_eq!(unified(&text(&[]), &text(&[(0, "x")])), "@@ -1,4 +1,4 @@\n-0\n+x\n 1\n 2\n 3\n");
        let two = unified(&text(&[]), &text(&[(2, "x"), (15, "y")]));
        assert_eq!(two.matches("@@ -").count(), 2);
        assert_eq!(unified("a\nb", "a\nb\nc"), "@@ -1,2 +1,3 @@\n a\n b\n+c\n");
        assert_eq!(unified("a", "b"), "@@ -1 +1 @@\n-a\n+b\n");
    }
}
