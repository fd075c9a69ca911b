;; Reads paths that no glob of its grant matches, ever new ones, for ever.
;; expect: timed-out
;; limits: fuel=1T timeout=500ms
;; grants: station

(import "flowstone:asset/files@0.1.0" "open" (func $open_directory (param i32 i32 i32)))
(import "flowstone:asset/files@0.1.0" "[method]directory.read" (func $read_file (param i32 i32 i32 i64 i32 i32)))
(func $materialize (param $asset i32) (param $length i32) (result i32)
  (local $d i32)
  (call $open_directory (i32.const 4096) (i32.const 7) (i32.const 2048))
  (local.set $d (i32.load (i32.const 2052)))
  (loop $again (global.set $n (i32.add (global.get $n) (i32.const 1)))
    (i32.store8 (i32.const 4104) (i32.add (i32.const 97) (i32.and (global.get $n) (i32.const 15))))
    (i32.store8 (i32.const 4105) (i32.add (i32.const 97) (i32.and (i32.shr_u (global.get $n) (i32.const 4)) (i32.const 15))))
    (i32.store8 (i32.const 4106) (i32.add (i32.const 97) (i32.and (i32.shr_u (global.get $n) (i32.const 8)) (i32.const 15))))
    (i32.store8 (i32.const 4107) (i32.add (i32.const 97) (i32.and (i32.shr_u (global.get $n) (i32.const 12)) (i32.const 15))))
    (call $read_file (local.get $d) (i32.const 4104) (i32.const 8) (i64.const 0) (i32.const 1) (i32.const 2048)) (br $again)) unreachable)
(global $n (mut i32) (i32.const 0))
(data (i32.const 4096) "station aaaaaaaa")
