;; Traps in a start function, but not while it is deployed.
;; expect: trapped
;; says: while it was instantiated

(import "wasi:random/random@0.2.12" "get-random-u64" (func $random_u64 (result i64)))
(func $start
  ;; The first number of the seed of every `describe`: an attempt has another.
  (if (i64.ne (call $random_u64) (i64.const 0x903df1a0ade0b876)) (then unreachable)))
(start $start)
