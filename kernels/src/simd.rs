//! The choice of instruction set: made once for the process, reported by name.
//!
//! A kernel is written once and compiled for each [`Level`]. It asks [`level`] once, at its door
//! and on the caller's thread, and hands the answer to its workers.
//!
//! The environment variable `DIRNET_SIMD` (`portable`, `sse4`, `avx2` or `neon`) overrules the
//! detection.

use std::cell::Cell;
use std::sync::OnceLock;

/// A set of instructions that kernels are compiled for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Level {
    /// What every machine of the target has, in plain Rust; on x86-64 that is SSE2.
    Portable,
    /// x86-64 with SSSE3, SSE4.1 and POPCNT: most processors since 2008.
    Sse4,
    /// x86-64 with AVX2, FMA, BMI2 and POPCNT: most processors since 2013.
    Avx2,
    /// Little-endian AArch64, all of which has NEON. Plain Rust may use it too; where the compiler
    /// would not find its use by itself, this level does.
    Neon,
}

impl Level {
    /// The name that `DIRNET_SIMD` knows it by.
    pub const fn name(self) -> &'static str {
        match self {
            Level::Portable => "portable",
            Level::Sse4 => "sse4",
            Level::Avx2 => "avx2",
            Level::Neon => "neon",
        }
    }
}

/// The levels that this machine can run, slowest first.
pub fn available() -> &'static [Level] {
    #[cfg(target_arch = "x86_64")]
    {
        let sse4 = is_x86_feature_detected!("ssse3")
            && is_x86_feature_detected!("sse4.1")
            && is_x86_feature_detected!("popcnt");
        let avx2 = is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("fma")
            && is_x86_feature_detected!("bmi2");
        match (sse4, avx2) {
            (true, true) => &[Level::Portable, Level::Sse4, Level::Avx2],
            (true, false) => &[Level::Portable, Level::Sse4],
            (false, _) => &[Level::Portable],
        }
    }
    #[cfg(all(target_arch = "aarch64", target_endian = "little"))]
    return &[Level::Portable, Level::Neon];
    #[cfg(not(any(
        target_arch = "x86_64",
        all(target_arch = "aarch64", target_endian = "little")
    )))]
    return &[Level::Portable];
}

/// The level of this process: what `DIRNET_SIMD` asks for, else the best [`available`] one.
///
/// # Errors
/// If the variable names no level that this machine can run.
pub fn choice() -> Result<Level, String> {
    static CHOICE: OnceLock<Result<Level, String>> = OnceLock::new();
    CHOICE.get_or_init(|| choose(std::env::var_os("DIRNET_SIMD").as_deref())).clone()
}

fn choose(wanted: Option<&std::ffi::OsStr>) -> Result<Level, String> {
    let here = available();
    let Some(wanted) = wanted.filter(|w| !w.is_empty()) else { return Ok(here[here.len() - 1]) };
    here.iter().copied().find(|level| wanted == level.name()).ok_or_else(|| {
        let names: Vec<_> = here.iter().map(|level| level.name()).collect();
        format!("DIRNET_SIMD is {wanted:?}; this machine can run: {}", names.join(", "))
    })
}

thread_local!(static FORCED: Cell<Option<Level>> = const { Cell::new(None) });

/// The level that a kernel called from this thread runs at; always an [`available`] one.
///
/// # Panics
/// If `DIRNET_SIMD` asks for what this machine lacks; ask [`choice`] first for an error instead.
pub fn level() -> Level {
    match FORCED.get() {
        Some(level) => level,
        None => choice().unwrap_or_else(|e| panic!("{e}")),
    }
}

/// The name of [`level`].
pub fn name() -> &'static str {
    level().name()
}

/// Runs `work` with the kernels it calls from this thread at `level`: so a test can hold each
/// level to the definition.
///
/// # Panics
/// If this machine lacks the level.
pub fn with_level<R>(level: Level, work: impl FnOnce() -> R) -> R {
    struct Restore(Option<Level>);
    impl Drop for Restore {
        fn drop(&mut self) {
            FORCED.set(self.0);
        }
    }
    assert!(available().contains(&level), "this machine lacks {}", level.name());
    let _restore = Restore(FORCED.replace(Some(level)));
    work()
}

/// Defines a function compiled for every [`Level`], which it takes as its first argument.
///
/// Generics stand in square brackets. The body, and whatever is inlined into it, may use any
/// instruction of the level; the constant `FUSED` tells it whether [`mul_add`] is one.
///
/// ```ignore
/// per_level! {
///     fn double[](x: &[f32], y: &mut [f32]) {
///         for (y, x) in y.iter_mut().zip(x) { *y = 2.0 * x }
///     }
/// }
/// double(simd::level(), &x, &mut y);
/// ```
macro_rules! per_level {
    ($($(#[$attribute:meta])* $vis:vis fn $name:ident [$($generics:tt)*]
        ($($arg:ident: $type:ty),* $(,)?) $(-> $result:ty)? $body:block)*) => {$(
        $(#[$attribute])*
        $vis fn $name<$($generics)*>(level: $crate::simd::Level, $($arg: $type),*) $(-> $result)? {
            // What needs `unsafe` at one level may be safe at another.
            #[allow(unused_unsafe)]
            fn portable<$($generics)*>($($arg: $type),*) $(-> $result)? {
                #[allow(dead_code)]
                const FUSED: bool = $crate::simd::PORTABLE_FUSED;
                $body
            }

            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "ssse3,sse4.1,popcnt")]
            #[allow(unused_unsafe)]
            fn sse4<$($generics)*>($($arg: $type),*) $(-> $result)? {
                #[allow(dead_code)]
                const FUSED: bool = $crate::simd::PORTABLE_FUSED;
                $body
            }

            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma,bmi2,popcnt")]
            #[allow(unused_unsafe)]
            fn avx2<$($generics)*>($($arg: $type),*) $(-> $result)? {
                #[allow(dead_code)]
                const FUSED: bool = true;
                $body
            }

            match level {
                // SAFETY: `simd::level` and `simd::with_level` hand out this level only where
                // `simd::available` found its features.
                #[cfg(target_arch = "x86_64")]
                $crate::simd::Level::Sse4 => unsafe { sse4($($arg),*) },
                // SAFETY: the same.
                #[cfg(target_arch = "x86_64")]
                $crate::simd::Level::Avx2 => unsafe { avx2($($arg),*) },
                // NEON is among what every machine of its target has.
                _ => portable($($arg),*),
            }
        }
    )*};
}
pub(crate) use per_level;

/// Asks for the cache lines of `data`, which the processor could not guess, without waiting.
#[inline(always)]
pub(crate) fn fetch(data: &[f32]) {
    data.chunks(16).for_each(|line| fetch_line(line.as_ptr()));
}

/// The same of a single line, wherever it lies.
#[inline(always)]
pub(crate) fn fetch_line(at: *const f32) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: any address may be asked for, and x86-64 has the instruction.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(at.cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = at;
}

/// Whether every machine of the target has an instruction for [`mul_add`].
pub(crate) const PORTABLE_FUSED: bool = cfg!(any(target_feature = "fma", target_arch = "aarch64"));

/// `a·b + c`, rounded once if `FUSED`, else twice, as is quick where there is no such instruction.
#[inline(always)]
pub(crate) fn mul_add<const FUSED: bool>(a: f32, b: f32, c: f32) -> f32 {
    if FUSED { a.mul_add(b, c) } else { a * b + c }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_variable_is_obeyed_or_refused() {
        assert_eq!(choose(Some("portable".as_ref())), Ok(Level::Portable));
        assert_eq!(choose(None), Ok(*available().last().unwrap()));
        assert_eq!(choose(Some("".as_ref())), choose(None));
        for &level in available() {
            assert_eq!(choose(Some(level.name().as_ref())), Ok(level));
        }
        let mut absent = ["avx1024"].to_vec();
        let all = [Level::Portable, Level::Sse4, Level::Avx2, Level::Neon];
        absent.extend(all.iter().filter(|l| !available().contains(l)).map(|level| level.name()));
        for name in absent {
            let e = choose(Some(name.as_ref())).unwrap_err();
            assert!(e.contains(name) && e.contains("can run: portable"), "{e}");
        }
    }

    #[test]
    fn a_forced_level_ends_with_its_closure() {
        let before = level();
        for &forced in available() {
            assert_eq!(with_level(forced, level), forced);
            assert_eq!(with_level(forced, || with_level(Level::Portable, name)), "portable");
        }
        assert_eq!(level(), before);
    }

    per_level! {
        fn double_all[F: Fn(f32) -> f32](x: &mut [f32], f: &F) -> usize {
            for x in x.iter_mut() {
                *x = f(*x);
            }
            x.len()
        }
    }

    #[test]
    fn a_function_runs_at_each_level() {
        for &level in available() {
            let mut x = [1.0, 2.0, 3.0];
            assert_eq!(double_all(level, &mut x, &|x| 2.0 * x), 3);
            assert_eq!(x, [2.0, 4.0, 6.0]);
        }
    }
}
