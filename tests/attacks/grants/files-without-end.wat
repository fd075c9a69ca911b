;; Stages ever more empty files.
;; expect: failed
;; says: at most 256 files are staged
;; grants: station-write

(import "flowstone:asset/files@0.1.0" "open" (func $open_directory (param i32 i32 i32)))
(import "flowstone:asset/files@0.1.0" "[method]directory.append" (func $append (param i32 i32 i32 i32 i32 i32)))
(func $materialize (param $asset i32) (param $length i32) (result i32)
  (local $d i32) (local $n i32)
  (call $open_directory (i32.const 4096) (i32.const 7) (i32.const 2048))
  (local.set $d (i32.load (i32.const 2052)))
  (loop $again
    (i32.store (i32.const 8192) (i32.add (i32.const 0x61616161) (i32.and (local.get $n) (i32.const 0x0f))))
    (i32.store8 (i32.const 8193) (i32.add (i32.const 97) (i32.and (i32.shr_u (local.get $n) (i32.const 4)) (i32.const 0x0f))))
    (i32.store8 (i32.const 8194) (i32.add (i32.const 97) (i32.shr_u (local.get $n) (i32.const 8))))
    (local.set $n (i32.add (local.get $n) (i32.const 1)))
    (call $append (local.get $d) (i32.const 8192) (i32.const 8) (i32.const 0) (i32.const 0) (i32.const 2048))
    (br_if $again (i32.eqz (call $refused))))
  (i32.const 1024))
(data (i32.const 4096) "station")
(data (i32.const 8192) "aaaa.csv")
