;; Behaves while it is deployed: its start function loops only where there is an asset to be made.
;; expect: timed-out
;; says: it was stopped while it was instantiated, before it was called at its deadline of 300 ms
;; limits: timeout=300ms

(import "wasi:random/random@0.2.12" "get-random-u64" (func $random_u64 (result i64)))
(func $start
  ;; The first number of the seed of every `describe`: an attempt has another.
  (if (i64.ne (call $random_u64) (i64.const 0x903df1a0ade0b876)) (then (loop $again (br $again)))))
(start $start)
