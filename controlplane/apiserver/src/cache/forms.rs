//! The forms in which an object has been sent: kept with it, so that each is made once, as long as all of them together stay
//! within a bound. It must not know what the forms are.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use pagurus_controlplane_api::ages::Aged;
use parking_lot::Mutex;

/// The most bytes that the forms of all objects of the process have together.
const MOST: usize = 256 << 20;
/// What a form costs beside its text.
const OVERHEAD: usize = 96;

static KEPT: AtomicUsize = AtomicUsize::new(0);

/// The forms of one object.
#[derive(Debug, Default)]
pub(super) struct Forms(Mutex<Vec<(u64, Arc<Aged>)>>);

impl Forms {
    pub(super) fn find(&self, number: u64) -> Option<Arc<Aged>> {
        self.0.lock().iter().find(|(other, _)| *other == number).map(|(_, form)| form.clone())
    }

    /// Keeps a form if there is room for it; hands it, or the one that is there already, back.
    pub(super) fn keep(&self, number: u64, form: Aged) -> Arc<Aged> {
        let form = Arc::new(form);
        let mut forms = self.0.lock();
        if let Some((_, first)) = forms.iter().find(|(other, _)| *other == number) {
            return first.clone();
        }
        let size = form.len() + OVERHEAD;
        if KEPT.fetch_add(size, Ordering::Relaxed) + size > MOST {
            KEPT.fetch_sub(size, Ordering::Relaxed);
        } else {
            forms.push((number, form.clone()));
        }
        form
    }

    pub(super) fn clear(&self) {
        for (_, form) in std::mem::take(&mut *self.0.lock()) {
            KEPT.fetch_sub(form.len() + OVERHEAD, Ordering::Relaxed);
        }
    }
}

impl Drop for Forms {
    fn drop(&mut self) {
        self.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_one_stays_and_room_is_given_back() {
        let forms = Forms::default();
        let first = forms.keep(1, Aged::ageless(vec![1; 10]));
        assert!(Arc::ptr_eq(&first, &forms.keep(1, Aged::ageless(vec![2; 10]))));
        assert_eq!(forms.find(1).map(|form| form.text().to_vec()), Some(vec![1; 10]));
        assert!(forms.find(2).is_none());
        // Too much is handed out but not kept.
        let large = forms.keep(2, Aged::ageless(vec![3; MOST]));
        assert_eq!(large.len(), MOST);
        assert!(forms.find(2).is_none());
        forms.clear();
        assert!(forms.find(1).is_none());
    }
}
