//! Maglev tables: even, alike for everybody, stable.
