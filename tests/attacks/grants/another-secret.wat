;; Reads a secret other than the granted one.
;; expect: failed
;; says: denied
;; grants: token

(import "flowstone:asset/secrets@0.1.0" "reveal" (func $reveal (param i32 i32 i32)))
(func $materialize (param $asset i32) (param $length i32) (result i32)
  (call $reveal (i32.const 4096) (i32.const 5) (i32.const 2048))
  (drop (call $refused))
  (i32.const 1024))
(data (i32.const 4096) "other")
