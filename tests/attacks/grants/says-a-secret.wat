;; Logs, prints and fails with a secret that it was shown.
;; expect: failed
;; says: [secret token]
;; grants: token

(import "flowstone:asset/secrets@0.1.0" "reveal" (func $reveal (param i32 i32 i32)))
(import "flowstone:asset/log@0.1.0" "write" (func $log (param i32 i32 i32 i32 i32)))
(import "wasi:cli/stdout@0.2.12" "get-stdout" (func $get_stdout (result i32)))
(import "wasi:io/streams@0.2.12" "[method]output-stream.blocking-write-and-flush" (func $blocking_write (param i32 i32 i32 i32)))
(func $materialize (param $asset i32) (param $length i32) (result i32)
  (local $at i32) (local $n i32)
  (call $reveal (i32.const 4096) (i32.const 5) (i32.const 2048))
  (local.set $at (i32.load (i32.const 2052))) (local.set $n (i32.load (i32.const 2056)))
  (call $log (i32.const 2) (local.get $at) (local.get $n) (i32.const 0) (i32.const 0))
  (call $blocking_write (call $get_stdout) (local.get $at) (local.get $n) (i32.const 2048))
  (call $fail (local.get $at) (local.get $n))
  (i32.const 1024))
(data (i32.const 4096) "token")
